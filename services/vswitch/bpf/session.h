/* Sessions: one entry for both directions of a flow, and how long it lives. */
#ifndef VSWITCH_SESSION_H
#define VSWITCH_SESSION_H

#include "maps.h"
#include "packet.h"

/* One packet's place in its session. `session` is the entry in the map or, if `fresh`, `blank`,
 * which enters the map once the packet is admitted. */
struct flow {
    struct ach_session_key key;
    __u32 from; /* the sender's side, 0 or 1 */
    bool fresh;
    bool slow; /* something was looked up that the session did not know */
    __u64 now;
    struct ach_session *session;
    struct ach_session blank;
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

static __always_inline __u64 session_lifetime(const struct ach_vswitch_config *config, __u8 proto,
                                              __u32 flags) {
    if (proto == IPPROTO_ICMP || proto == ACH_PROTO_ICMP6)
        return config->icmp_ns;
    if (proto != IPPROTO_TCP)
        return config->udp_ns;
    flags &= ACH_SESSION_REPLIED | ACH_SESSION_CLOSING;
    return flags == ACH_SESSION_REPLIED ? config->tcp_established_ns : config->tcp_opening_ns;
}

/* Idle for too long, or a closed connection's ports that a new one uses. */
static __always_inline bool session_is_over(const struct flow *flow,
                                            const struct ach_session *session,
                                            const struct ach_packet *packet,
                                            const struct ach_vswitch_config *config) {
    /* Signed: another CPU may have seen a packet after we read the clock. */
    __s64 idle = flow->now - session->last_seen_ns;
    if (idle > (__s64)session_lifetime(config, packet->proto, session->flags))
        return true;
    return session->flags & ACH_SESSION_CLOSING &&
           (packet->tcp_flags & (ACH_TCP_SYN | ACH_TCP_ACK)) == ACH_TCP_SYN;
}

static __always_inline void flow_open(struct flow *flow, const struct ach_packet *packet,
                                      const struct ach_vswitch_config *config) {
    flow->now = bpf_ktime_get_ns();
    flow->from = session_key(packet, &flow->key);
    flow->session = bpf_map_lookup_elem(&sessions, &flow->key);
    flow->fresh = !flow->session || session_is_over(flow, flow->session, packet, config);
    flow->slow = flow->fresh;
    if (!flow->fresh)
        return;
    __builtin_memset(&flow->blank, 0, sizeof(flow->blank));
    flow->blank.created_ns = flow->now;
    flow->blank.flags = flow->from ? ACH_SESSION_INITIATOR_1 : 0;
    flow->session = &flow->blank;
}

/* The packet is admitted: the session has seen it. Counts are of both CPUs' sides and may lose one
 * where both write at once; nothing is decided by them. */
static __always_inline int flow_commit(struct flow *flow, const struct ach_packet *packet,
                                       __u32 bytes) {
    struct ach_session *session = flow->session;
    __u32 flags = session->flags;
    if (flow->from != (flags & ACH_SESSION_INITIATOR_1))
        flags |= ACH_SESSION_REPLIED;
    if (packet->tcp_flags & (ACH_TCP_FIN | ACH_TCP_RST))
        flags |= ACH_SESSION_CLOSING;
    if (flags != session->flags)
        session->flags = flags;
    session->last_seen_ns = flow->now;
    session->packets[flow->from & 1]++;
    session->bytes[flow->from & 1] += bytes;
    if (flow->fresh && bpf_map_update_elem(&sessions, &flow->key, &flow->blank, BPF_ANY))
        return -ACH_DROP_SESSION_TABLE_FULL;
    return 0;
}

#endif
