/* Security groups: stateful rules. A session asks them once per local port, in the direction of its
 * first packet, and again when the rules or the other end's identity have changed. */
#ifndef VSWITCH_ACL_H
#define VSWITCH_ACL_H

#include "hop.h"
#include "classify.h"

#define PROTO_ICMPV6      58
#define ICMPV6_ECHO       128
#define ICMPV6_ECHO_REPLY 129

static __always_inline __u32 initiator_of(const struct flow *flow) {
    return flow->session->flags & ACH_SESSION_INITIATOR_1;
}

/* The identity of the receiver of a guest's packet, where the sender's egress rules ask for it: of
 * the vNIC on this host, or as the FC has it. */
static __always_inline __s32 identity_of_next(const struct flow *flow,
                                              const struct next_hop *next) {
    if (next->port)
        return next->port->identity;
    return next->route && flow->from == initiator_of(flow) ? next->route->identity : ACL_UNKNOWN;
}

/* The identity of the sender of a packet from another host, where the receiver's ingress rules ask
 * for it. Replies keep to the FC's word: while groups change, the two may differ for a moment. */
static __always_inline __s32 identity_of_sender(const struct flow *flow, __u16 on_the_wire) {
    return flow->from == initiator_of(flow) ? on_the_wire : ACL_UNKNOWN;
}

/* The ICMP type of the session's first packet, when this one is a reply to it. */
static __always_inline __u8 icmp_counterpart(__u8 type) {
    switch (type) {
    case ACH_ICMP_ECHO_REPLY:
        return ACH_ICMP_ECHO;
    case ACH_ICMP_ECHO:
        return ACH_ICMP_ECHO_REPLY;
    case ICMPV6_ECHO_REPLY:
        return ICMPV6_ECHO;
    case ICMPV6_ECHO:
        return ICMPV6_ECHO_REPLY;
    default:
        return ach_icmp_request(type);
    }
}

/* What the session's first packet asked for. */
static __always_inline __u32 service_of(const struct ach_packet *packet, bool reply) {
    switch (packet->proto) {
    case IPPROTO_TCP:
    case IPPROTO_UDP:
        return ACH_SERVICE(packet->proto, bpf_ntohs(reply ? packet->sport : packet->dport));
    case IPPROTO_ICMP:
    case PROTO_ICMPV6: {
        __u32 kind = reply ? icmp_counterpart(packet->icmp_type) << 8
                           : packet->icmp_type << 8 | packet->icmp_code;
        return ACH_SERVICE(packet->proto, kind);
    }
    default:
        return ACH_SERVICE(packet->proto, 0);
    }
}

/* Whether the rules of the local port on `side` allow the session; query->identity is that of the
 * other end. The answer is kept in the session while neither the port nor its rules nor the
 * identity change; a session that they no longer allow ends. A refusal leaves the rule in `query`.
 */
static __always_inline int admit(struct flow *flow, const struct ach_packet *packet, __u32 side,
                                 __u32 slot, const struct ach_port *port, struct acl_query *query) {
    struct ach_session *session = flow->session;
    side &= 1;
    __u32 generation = port->generation, acl_gen = port->acl_gen;
    __u32 initiator = initiator_of(flow);
    bool outbound = side == initiator;
    __u16 *known = &session->identity[side ^ 1];
    bool asked = session->acl_port[side] == slot &&
                 hop_is(&session->hop[side], slot | ACH_HOP_LOCAL, generation);
    /* Every packet on the wire says who sent it; of a receiver 0 may mean that the FC was silent.
     */
    if (asked && query->identity == ACL_UNKNOWN && (*known || !outbound))
        query->identity = *known;
    bool same = query->identity == ACL_UNKNOWN || query->identity == *known;
    if (asked && same && session->acl_gen[side] == acl_gen)
        return 0;
    flow->slow = true;
    query->set = outbound ? port->acl_out : port->acl_in;
    query->service = service_of(packet, flow->from != initiator);
    ach_copy_ip(query->remote, side == flow->from ? packet->to.ip : packet->from.ip);
    int error = acl_classify(query, outbound ? -ACH_DROP_ACL_EGRESS : -ACH_DROP_ACL_INGRESS);
    if (error) {
        if (!flow->fresh && error != -ACH_DROP_IDENTITY_UNKNOWN)
            session_remove(&flow->key, flow->session);
        return error;
    }
    session->acl_port[side] = slot;
    session->acl_gen[side] = acl_gen;
    *known = query->identity == ACL_UNKNOWN ? 0 : query->identity;
    hop_write(&session->hop[side], slot | ACH_HOP_LOCAL, generation);
    return 0;
}

#endif
