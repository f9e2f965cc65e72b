/* Sessions: one entry for both directions of a flow, from its first packet to its end. */
#ifndef VSWITCH_SESSION_H
#define VSWITCH_SESSION_H

#include "reclaim.h"
#include "tcp.h"

/* One packet's place in its session. `session` is the entry in the map or, if `fresh`, one
 * that enters the map once the packet is admitted. */
struct flow {
    struct ach_session_key key;
    __u32 from; /* the sender's side, 0 or 1 */
    bool fresh;
    bool slow; /* something was looked up that the session did not know */
    __u64 now;
    const struct ach_vswitch_config *config;
    struct ach_session *session;
    struct ach_session *ended; /* if fresh: what the map still holds under this key, or NULL */
};

/* Fills in the canonical key and returns the sender's side. */
static __always_inline __u32 session_key(const struct ach_packet *packet,
                                         struct ach_session_key *key) {
    int order = ach_compare_ip(packet->from.ip, packet->to.ip);
    if (!order)
        order = (int)bpf_ntohs(packet->sport) - (int)bpf_ntohs(packet->dport);
    __builtin_memset(key, 0, sizeof(*key));
    key->vni = packet->from.vni;
    key->proto = packet->proto;
    if (order > 0) {
        ach_copy_ip(key->ip[0], packet->to.ip);
        ach_copy_ip(key->ip[1], packet->from.ip);
        key->port[0] = packet->dport;
        key->port[1] = packet->sport;
        return 1;
    }
    ach_copy_ip(key->ip[0], packet->from.ip);
    ach_copy_ip(key->ip[1], packet->to.ip);
    key->port[0] = packet->sport;
    key->port[1] = packet->dport;
    return 0;
}

/* Idle for too long, or a closed connection's ports that a new one uses. */
static __always_inline bool session_is_over(const struct flow *flow,
                                            const struct ach_session *session,
                                            const struct ach_packet *packet) {
    if (session_is_idle(packet->proto, session, flow->now, flow->config))
        return true;
    return session->flags & (SESSION_FIN | SESSION_RST) && tcp_begins(packet);
}

/* Finds the packet's session or begins one, to be charged to the local vNIC in slot `owner`.
 * `kind`: ACH_SESSION_ARRIVED for a packet from another host, or 0. Returns 0 or a drop reason. */
static __always_inline int flow_open(struct flow *flow, const struct ach_packet *packet,
                                     const struct ach_vswitch_config *config, __u32 owner,
                                     __u32 kind) {
    flow->now = bpf_ktime_get_ns();
    flow->config = config;
    flow->from = session_key(packet, &flow->key);
    flow->session = bpf_map_lookup_elem(&sessions, &flow->key);
    flow->ended = flow->session;
    flow->fresh = !flow->session || session_is_over(flow, flow->session, packet);
    flow->slow = flow->fresh;
    if (!flow->fresh)
        return 0;
    __u32 only = 0;
    struct ach_session *blank = bpf_map_lookup_elem(&session_blank, &only);
    if (!blank)
        return -ACH_DROP_SESSION_TABLE_FULL;
    __builtin_memset(blank, 0, sizeof(*blank));
    blank->created_ns = flow->now;
    blank->flags = (flow->from ? ACH_SESSION_INITIATOR_1 : 0) | kind;
    blank->owner = owner;
    flow->session = blank;
    return 0;
}

/* Whether the vNIC that the new session is charged to may have one more. */
static __always_inline bool within_limit(const struct flow *flow,
                                         const struct ach_session_counts *counts) {
    struct ach_port *port = port_in(flow->session->owner);
    __u32 limit = port && port->session_limit ? port->session_limit : flow->config->session_limit;
    __u32 side = flow->session->flags & ACH_SESSION_ARRIVED ? 1 : 0;
    __s64 open = counts->opened[side] - counts->closed[side];
    return !limit || open < (__s64)limit;
}

/* The new session enters the map. */
static __noinline int session_enter(struct flow *flow) {
    __u32 owner = flow->session->owner;
    struct ach_session_counts *counts = bpf_map_lookup_elem(&session_counts, &owner);
    if (!counts)
        return -ACH_DROP_SESSION_TABLE_FULL;
    __u32 kind = flow->session->flags & ACH_SESSION_ARRIVED;
    struct reclaim from = {.now = flow->now, .config = flow->config, .owner = owner, .kind = kind};
    if (flow->ended) /* before anything is counted: its place is the new one's */
        session_remove(&flow->key, flow->ended);
    if (!within_limit(flow, counts) && !session_reclaim(&from))
        return -ACH_DROP_SESSION_LIMIT;
    long error = bpf_map_update_elem(&sessions, &flow->key, flow->session, BPF_NOEXIST);
    if (error == -17) /* EEXIST: another CPU was faster, with another packet of the flow */
        return 0;
    from.owner = 0;
    if (error && session_reclaim(&from))
        error = bpf_map_update_elem(&sessions, &flow->key, flow->session, BPF_ANY);
    if (error)
        return -ACH_DROP_SESSION_TABLE_FULL;
    __sync_fetch_and_add(&counts->opened[kind ? 1 : 0], 1);
    ring_push(&flow->key, flow->config);
    return 0;
}

/* The packet is admitted: the session has seen it. Counts are of both CPUs' sides and may lose one
 * where both write at once; nothing is decided by them. */
static __always_inline int flow_commit(struct flow *flow, const struct ach_packet *packet,
                                       __u32 bytes) {
    struct ach_session *session = flow->session;
    __u32 flags = session->flags, after = session_seen(flags, flow->from, packet);
    if (after & ~flags)
        __sync_fetch_and_or(&session->flags, after & ~flags);
    if (flags & ~after)
        __sync_fetch_and_and(&session->flags, ~(flags & ~after));
    session->last_seen_ns = flow->now;
    session->packets[flow->from & 1]++;
    session->bytes[flow->from & 1] += bytes;
    if (!flow->fresh)
        return 0;
    if (packet->proto == IPPROTO_TCP && !tcp_begins(packet) && flow->config->refuse_midstream)
        return -ACH_DROP_TCP_MIDSTREAM;
    return session_enter(flow);
}

#endif
