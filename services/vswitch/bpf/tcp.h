/* How far a session has come, by the packets that it has seen. */
#ifndef VSWITCH_TCP_H
#define VSWITCH_TCP_H

#include "maps.h"
#include "packet.h"

#define ICMPV6 58

#define SESSION_FIN (ACH_SESSION_FIN_0 | ACH_SESSION_FIN_1)
#define SESSION_RST (ACH_SESSION_RST_0 | ACH_SESSION_RST_1)

static __always_inline __u32 tcp_state(__u32 flags) {
    if (flags & (SESSION_FIN | SESSION_RST)) {
        bool over = flags & SESSION_RST || (flags & SESSION_FIN) == SESSION_FIN;
        return over ? ACH_STATE_TCP_CLOSED : ACH_STATE_TCP_CLOSING;
    }
    if (flags & ACH_SESSION_ESTABLISHED)
        return ACH_STATE_TCP_ESTABLISHED;
    return flags & ACH_SESSION_REPLIED ? ACH_STATE_TCP_SYN_RECEIVED : ACH_STATE_TCP_SYN_SENT;
}

/* Enum ach_session_state. */
static __always_inline __u32 session_state(__u8 proto, __u32 flags) {
    if (proto == IPPROTO_TCP)
        return tcp_state(flags);
    if (proto == IPPROTO_UDP)
        return flags & ACH_SESSION_REPLIED ? ACH_STATE_UDP_REPLIED : ACH_STATE_UDP_SENT;
    return proto == IPPROTO_ICMP || proto == ICMPV6 ? ACH_STATE_ICMP : ACH_STATE_OTHER;
}

/* One side alone has spoken so far, or TCP's handshake is not over. */
static __always_inline bool session_is_half_open(__u8 proto, __u32 flags) {
    if (proto == IPPROTO_TCP)
        return !(flags & (ACH_SESSION_ESTABLISHED | SESSION_FIN | SESSION_RST));
    return !(flags & ACH_SESSION_REPLIED);
}

static __always_inline bool session_is_idle(__u8 proto, const struct ach_session *session,
                                            __u64 now, const struct ach_vswitch_config *config) {
    __u32 state = session_state(proto, session->flags);
    /* Signed: another CPU may have seen a packet after we read the clock. */
    __s64 idle = now - session->last_seen_ns;
    return state < ACH_SESSION_STATES && idle > (__s64)config->session_timeout_ns[state];
}

static __always_inline bool tcp_begins(const struct ach_packet *packet) {
    return (packet->tcp_flags & (ACH_TCP_SYN | ACH_TCP_ACK)) == ACH_TCP_SYN;
}

/* The flags after a TCP packet. Sequence numbers are not kept: nobody but the two ends can send for
 * them, and an end that goes on after its own RST takes it back, for no real stack does. */
static __always_inline __u32 tcp_seen(__u32 flags, __u32 from, bool first_side, __u8 tcp) {
    if (tcp & ACH_TCP_RST)
        return flags | ACH_SESSION_RST_0 << from;
    if (!(tcp & ACH_TCP_SYN)) {
        flags &= ~(ACH_SESSION_RST_0 << from);
        /* An answer without SYN: the session began in mid-stream. */
        if (!first_side || flags & ACH_SESSION_REPLIED)
            flags |= ACH_SESSION_ESTABLISHED;
    }
    if (tcp & ACH_TCP_FIN)
        flags |= ACH_SESSION_FIN_0 << from;
    return flags;
}

/* The flags after a packet from side `from`. */
static __always_inline __u32 session_seen(__u32 flags, __u32 from,
                                          const struct ach_packet *packet) {
    bool first_side = from == (flags & ACH_SESSION_INITIATOR_1);
    __u32 after = flags;
    if (packet->proto == IPPROTO_TCP)
        after = tcp_seen(after, from & 1, first_side, packet->tcp_flags);
    return first_side ? after : after | ACH_SESSION_REPLIED;
}

#endif
