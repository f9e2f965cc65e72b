/* Security groups: stateful allow rules. A session asks them once per local port, in the direction
 * of its first packet, and again when the rules have changed. */
#ifndef VSWITCH_ACL_H
#define VSWITCH_ACL_H

#include "hop.h"

struct acl_query {
    __u8 remote[16];
    const struct ach_ruleset *set;
    __u16 port; /* the destination port of the session's first packet */
    __u8 proto;
    bool allowed;
};

static long acl_try_rule(__u32 index, struct acl_query *query) {
    if (index >= ACH_MAX_RULES)
        return 1;
    const struct ach_rule *rule = &query->set->rules[index];
    if (rule->proto && rule->proto != query->proto)
        return 0;
    if (query->port < rule->port_min || query->port > rule->port_max)
        return 0;
    query->allowed = ach_in_prefix(query->remote, rule->remote, rule->remote_len);
    return query->allowed;
}

/* A function of its own, so that the verifier walks it once. */
static __noinline bool acl_allows(__u32 set_id, struct acl_query *query) {
    query->allowed = false;
    query->set = bpf_map_lookup_elem(&acl, &set_id);
    if (!query->set)
        return false;
    __u32 count = query->set->count;
    bpf_loop(count < ACH_MAX_RULES ? count : ACH_MAX_RULES, acl_try_rule, query, 0);
    return query->allowed;
}

/* Whether the rules of the local port on `side` allow the session. The answer is kept in the
 * session while neither the port nor its rules change; a session that they no longer allow ends. */
static __always_inline int admit(struct flow *flow, const struct ach_packet *packet, __u32 side,
                                 __u32 slot, const struct ach_port *port) {
    struct ach_session *session = flow->session;
    side &= 1;
    __u32 generation = port->generation, acl_gen = port->acl_gen;
    if (session->acl_port[side] == slot && session->acl_gen[side] == acl_gen &&
        hop_is(&session->hop[side], slot | ACH_HOP_LOCAL, generation))
        return 0;
    flow->slow = true;
    __u32 initiator = session->flags & ACH_SESSION_INITIATOR_1;
    bool outbound = side == initiator;
    struct acl_query query = {
        .port = bpf_ntohs(flow->from == initiator ? packet->dport : packet->sport),
        .proto = packet->proto,
    };
    ach_copy_ip(query.remote, side == flow->from ? packet->to.ip : packet->from.ip);
    if (!acl_allows(outbound ? port->acl_out : port->acl_in, &query)) {
        if (!flow->fresh)
            session_remove(&flow->key, flow->session);
        return outbound ? -ACH_DROP_ACL_EGRESS : -ACH_DROP_ACL_INGRESS;
    }
    session->acl_port[side] = slot;
    session->acl_gen[side] = acl_gen;
    hop_write(&session->hop[side], slot | ACH_HOP_LOCAL, generation);
    return 0;
}

#endif
