/* Room for sessions: who holds how many, and which go when there is no room. Bounded in work, and
 * needed only when the agent, which removes what has ended, is slow, flooded or dead. An
 * established TCP session or UDP stream never goes before its time. */
#ifndef VSWITCH_RECLAIM_H
#define VSWITCH_RECLAIM_H

#include "tcp.h"

#define RECLAIM_TRIES 32 /* enough to pass by a ring of 65,536 keys of sessions long gone */
#define HANDSHAKE_NS  1000000000ULL /* so long a half-open session is left alone */
#define EXCHANGE_NS   2000000000LL  /* UDP that was over so soon after its beginning is no stream */

struct reclaim {
    __u64 now;
    const struct ach_vswitch_config *config;
    __u32 owner; /* take only from this vNIC; 0: from anyone */
    __u32 kind;  /* of its sessions: ACH_SESSION_ARRIVED or 0 */
    bool found;
    bool narrowing;
};

static __always_inline void session_count_closed(__u32 owner, __u32 flags) {
    struct ach_session_counts *counts = bpf_map_lookup_elem(&session_counts, &owner);
    if (counts)
        __sync_fetch_and_add(&counts->closed[flags & ACH_SESSION_ARRIVED ? 1 : 0], 1);
}

/* Removes a session that the map holds, and tells its owner's count. */
static __always_inline bool session_remove(const struct ach_session_key *key,
                                           const struct ach_session *session) {
    __u32 owner = session->owner, flags = session->flags;
    if (bpf_map_delete_elem(&sessions, key))
        return false;
    session_count_closed(owner, flags);
    return true;
}

/* A question and its answer, as of DNS: nothing more is to be expected of it. */
static __always_inline bool is_exchange(__u8 proto, const struct ach_session *session, __s64 idle) {
    __s64 lasted = session->last_seen_ns - session->created_ns;
    return proto == IPPROTO_UDP && session->flags & ACH_SESSION_REPLIED && lasted < EXCHANGE_NS &&
           idle > (__s64)HANDSHAKE_NS;
}

static __always_inline bool may_go(const struct reclaim *reclaim, __u8 proto,
                                   const struct ach_session *session) {
    if (reclaim->owner && (reclaim->owner != session->owner ||
                           reclaim->kind != (session->flags & ACH_SESSION_ARRIVED)))
        return false;
    __s64 idle = reclaim->now - session->last_seen_ns;
    if (session_is_half_open(proto, session->flags) && idle > (__s64)HANDSHAKE_NS)
        return true;
    /* Its last packets may still be on their way, but a new connection's are worth more. */
    if (proto == IPPROTO_TCP && session_state(proto, session->flags) == ACH_STATE_TCP_CLOSED)
        return true;
    /* Of the vNIC's own alone: it chooses by what it does which of them are worth more. */
    if (reclaim->owner && is_exchange(proto, session, idle))
        return true;
    return session_is_idle(proto, session, reclaim->now, reclaim->config);
}

/* Where the hand is: from the oldest key to the newest, and again. */
static __always_inline __u64 hand_of(struct ach_session_hands *hands, __u32 ring) {
    __u64 head = hands->head, hand = hands->hand, oldest = head > ring ? head - ring : 0;
    if (hand >= oldest && hand < head)
        return hand;
    hands->hand = oldest;
    return oldest;
}

/* Most keys before the first living session are of sessions long gone: over them it gallops, in
 * strides that double, until it meets a session. One that may go it takes there and then; else
 * strides halve, down to the next key. */
static long reclaim_step(__u32 index, struct reclaim *reclaim) {
    __u32 only = 0, ring = reclaim->config->session_ring;
    struct ach_session_hands *hands = bpf_map_lookup_elem(&session_hands, &only);
    struct packet_scratch *kept = packet_scratch();
    if (!hands || !ring || !kept)
        return 1;
    __u64 hand = hand_of(hands, ring), ahead = kept->stride - 1;
    bool beyond = hand + ahead >= hands->head;
    __u32 at = (hand + ahead) % ring;
    /* No copy: the stack is short of room. A key that another CPU writes over names no session. */
    const struct ach_session_key *key = beyond ? NULL : bpf_map_lookup_elem(&session_ring, &at);
    struct ach_session *session = key ? bpf_map_lookup_elem(&sessions, key) : NULL;
    if (!session && !beyond)
        hands->hand = hand + ahead + 1;
    reclaim->narrowing = ahead && (reclaim->narrowing || session || beyond);
    if (reclaim->narrowing)
        kept->stride /= 2;
    else if (!session)
        kept->stride *= 2;
    if (!session)
        return 0;
    if (!ahead)
        hands->hand = hand + 1;
    if (!may_go(reclaim, key->proto, session) || !session_remove(key, session))
        return 0;
    __sync_fetch_and_add(&hands->reclaimed, 1);
    reclaim->found = true;
    return 1;
}

/* Removes one session that may go, of those that come next in the ring. */
static __noinline bool session_reclaim(struct reclaim *reclaim) {
    struct packet_scratch *kept = packet_scratch();
    reclaim->found = reclaim->narrowing = false;
    if (!kept)
        return false;
    kept->stride = 1;
    bpf_loop(RECLAIM_TRIES, reclaim_step, reclaim, 0);
    return reclaim->found;
}

static __always_inline void ring_push(const struct ach_session_key *key,
                                      const struct ach_vswitch_config *config) {
    __u32 only = 0;
    struct ach_session_hands *hands = bpf_map_lookup_elem(&session_hands, &only);
    if (!hands || !config->session_ring)
        return;
    __u32 at = __sync_fetch_and_add(&hands->head, 1) % config->session_ring;
    struct ach_session_key *place = bpf_map_lookup_elem(&session_ring, &at);
    if (place)
        *place = *key;
}

#endif
