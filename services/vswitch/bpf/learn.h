/* What a miss of the FC leads to: a gateway for the packet, and an event for the agent. */
#ifndef VSWITCH_LEARN_H
#define VSWITCH_LEARN_H

#include "maps.h"
#include "ach_addr.h"

#define LEARN_WINDOW_NS 100000000ull

/* The gateway that relays to this destination, 0 if there is none. */
static __always_inline __be32 gateway_for(const struct ach_vni_ip *to) {
    __u32 slot = ach_hash(to) % ACH_GATEWAY_SLOTS;
    __be32 *vtep = bpf_map_lookup_elem(&gateways, &slot);
    return vtep ? *vtep : 0;
}

static __always_inline bool learn_allowed(const struct ach_vni_ip *to, __u64 now,
                                          const struct ach_vswitch_config *config,
                                          struct ach_port_counters *counted) {
    __u64 *seen = bpf_map_lookup_elem(&learn_seen, to);
    if (seen && (__s64)(now - *seen) < (__s64)config->learn_interval_ns)
        return false;
    __u64 window = now / LEARN_WINDOW_NS;
    if (counted->learn_window != window) {
        counted->learn_window = window;
        counted->learn_in_window = 0;
    }
    return counted->learn_in_window < config->learn_per_window;
}

/* Tells the agent that traffic goes to an address whose route it might learn. The limits keep a
 * guest that scans addresses from flooding the ring, and its host from flooding the gateways. */
static __always_inline void learn_destination(const struct ach_vni_ip *to, __u32 port, __u64 now,
                                              const struct ach_vswitch_config *config,
                                              struct ach_port_counters *counted) {
    if (!learn_allowed(to, now, config, counted))
        return;
    struct ach_learn_event *event = bpf_ringbuf_reserve(&learn, sizeof(*event), 0);
    if (!event)
        return;
    event->vni = to->vni;
    ach_copy_ip(event->ip, to->ip);
    event->port = port;
    event->at_ns = now;
    bpf_ringbuf_submit(event, 0);
    bpf_map_update_elem(&learn_seen, to, &now, BPF_ANY);
    counted->learn_in_window++;
    counted->learn_events++;
}

#endif
