/* The next hop towards an address: a vNIC on this host, an FC entry, or not known. */
#ifndef VSWITCH_HOP_H
#define VSWITCH_HOP_H

#include "session.h"

/* What a hop names, looked up; both NULL: not known, relay. */
struct next_hop {
    __u32 slot; /* in ports or in fc */
    struct ach_port *port;
    struct ach_fc_entry *route;
};

/* Both words at once: the session's other direction may run on another CPU. */
static __always_inline struct ach_hop hop_read(const struct ach_hop *from) {
    union {
        __u64 whole;
        struct ach_hop hop;
    } read = {.whole = *(volatile const __u64 *)from};
    return read.hop;
}

static __always_inline void hop_write(struct ach_hop *to, __u32 slot, __u32 generation) {
    *(volatile __u64 *)to = (__u64)generation << 32 | slot;
}

static __always_inline bool hop_is(const struct ach_hop *hop, __u32 slot, __u32 generation) {
    struct ach_hop now = hop_read(hop);
    return now.slot == slot && now.generation == generation;
}

static __always_inline struct ach_fc_entry *fc_in(__u32 slot) {
    struct ach_fc_entry *route = bpf_map_lookup_elem(&fc, &slot);
    return route && route->generation & 1 ? route : NULL;
}

/* What the session remembers, if nothing changed since. */
static __always_inline bool hop_recall(const struct ach_hop *remembered, struct next_hop *next) {
    struct ach_hop hop = hop_read(remembered);
    if (hop.slot == ACH_HOP_NONE)
        return false;
    if (hop.slot & ACH_HOP_LOCAL) {
        next->slot = hop.slot & ~ACH_HOP_LOCAL;
        next->port = port_in(next->slot);
        return next->port && next->port->generation == hop.generation;
    }
    next->slot = hop.slot;
    next->route = fc_in(next->slot);
    return next->route && next->route->generation == hop.generation;
}

/* What the tables say now. */
static __always_inline void hop_find(const struct ach_vni_ip *to, struct next_hop *next) {
    next->port = NULL;
    next->route = NULL;
    __u32 *slot = bpf_map_lookup_elem(&endpoints, to);
    if (slot) {
        next->slot = *slot;
        next->port = port_in(*slot);
        if (next->port)
            return;
    }
    slot = bpf_map_lookup_elem(&fc_index, to);
    if (slot) {
        next->slot = *slot;
        next->route = fc_in(*slot);
    }
}

/* The next hop of the packet, from the session or else from the tables; a route found is
 * remembered here, a local port by admit, once its rules were asked. */
static __always_inline void hop_resolve(struct flow *flow, const struct ach_packet *packet,
                                        struct next_hop *next) {
    struct ach_session *session = flow->session;
    __u32 side = (flow->from ^ 1) & 1;
    next->port = NULL;
    next->route = NULL;
    if (hop_recall(&session->hop[side], next))
        return;
    flow->slow = true;
    hop_find(&packet->to, next);
    if (next->port)
        return;
    session->acl_port[side] = 0;
    session->acl_gen[side] = 0;
    if (next->route)
        hop_write(&session->hop[side], next->slot, next->route->generation);
    else
        hop_write(&session->hop[side], ACH_HOP_NONE, 0);
}

#endif
