/* What a miss of the FC leads to: a gateway for the packet, and an event for the agent. */
#ifndef VSWITCH_LEARN_H
#define VSWITCH_LEARN_H

#include "maps.h"
#include "ach_addr.h"

#define LEARN_WINDOW_NS 100000000ull

/* The gateway that relays to this destination, 0 if there is none. */
static __always_inline __be32 gateway_for(const struct ach_vni_ip *to) {
    __u32 shard = to->vni % ACH_GATEWAY_SHARDS;
    __u32 slot = shard * ACH_GATEWAY_SLOTS + ach_hash(to) % ACH_GATEWAY_SLOTS;
    __be32 *vtep = bpf_map_lookup_elem(&gateways, &slot);
    return vtep ? *vtep : 0;
}

/* Counts a packet that is relayed to this destination; NULL while there is nowhere to count. */
static __always_inline struct relayed_flow *count_relayed(const struct ach_vni_ip *to, __u64 now,
                                                          __u32 bytes, __u64 pause_ns) {
    struct relayed_flow *flow = bpf_map_lookup_elem(&relayed, to);
    if (!flow) {
        struct relayed_flow fresh = {.first_ns = now, .last_ns = now};
        bpf_map_update_elem(&relayed, to, &fresh, BPF_NOEXIST);
        flow = bpf_map_lookup_elem(&relayed, to);
        if (!flow)
            return NULL;
    }
    if ((__s64)(now - flow->last_ns) > (__s64)pause_ns) {
        flow->first_ns = now;
        flow->packets = 0;
        flow->bytes = 0;
    }
    flow->last_ns = now;
    flow->packets++;
    flow->bytes += bytes;
    return flow;
}

/* Whether what was relayed so far makes a route worth its entry. */
static __always_inline bool worth_learning(const struct relayed_flow *flow, __u64 now,
                                           const struct ach_vswitch_config *config) {
    bool enough = flow->packets >= config->learn_packets ||
                  (config->learn_bytes && flow->bytes >= config->learn_bytes);
    return enough && (__s64)(now - flow->first_ns) >= (__s64)config->learn_after_ns;
}

/* At most so many events per destination, and per vNIC, as the configuration says. */
static __always_inline bool learn_allowed(const struct relayed_flow *flow, __u64 now,
                                          const struct ach_vswitch_config *config,
                                          struct ach_port_counters *counted) {
    if (flow->told_ns && (__s64)(now - flow->told_ns) < (__s64)config->learn_interval_ns)
        return false;
    __u64 window = now / LEARN_WINDOW_NS;
    if (counted->learn_window != window) {
        counted->learn_window = window;
        counted->learn_in_window = 0;
    }
    return counted->learn_in_window < config->learn_per_window;
}

/* Counts what is relayed, and tells the agent of destinations that are worth a route. The limits
 * keep a guest that scans addresses from flooding the ring, and its host from flooding the
 * gateways. */
static __always_inline void learn_destination(const struct ach_vni_ip *to, __u32 port, __u64 now,
                                              __u32 bytes, const struct ach_vswitch_config *config,
                                              struct ach_port_counters *counted) {
    struct relayed_flow *flow = count_relayed(to, now, bytes, config->learn_pause_ns);
    if (!flow || !worth_learning(flow, now, config) || !learn_allowed(flow, now, config, counted))
        return;
    struct ach_learn_event *event = bpf_ringbuf_reserve(&learn, sizeof(*event), 0);
    if (!event)
        return;
    event->vni = to->vni;
    ach_copy_ip(event->ip, to->ip);
    event->port = port;
    event->at_ns = now;
    bpf_ringbuf_submit(event, 0);
    flow->told_ns = now;
    counted->learn_in_window++;
    counted->learn_events++;
}

#endif
