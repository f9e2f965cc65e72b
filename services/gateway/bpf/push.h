/* "I relayed for this host": told to the agent, which sends the host the route unasked. */
#ifndef GATEWAY_PUSH_H
#define GATEWAY_PUSH_H

#include "ach_addr.h"
#include "maps.h"

#define PUSH_WINDOW_NS 100000000ull

/* Once per destination and host in an interval, and so many in all per CPU and 100 ms: what is
 * not told is learned by asking. */
static __always_inline void tell_relayed(const struct ach_relayed_event *relayed,
                                         const struct ach_gateway_config *config,
                                         struct ach_gateway_counters *counted) {
    if (!config->push_interval_ns)
        return;
    __u64 now = bpf_ktime_get_ns();
    __u64 *told = bpf_map_lookup_elem(&pushed, relayed);
    if (told && (__s64)(now - *told) < (__s64)config->push_interval_ns)
        return;
    __u64 window = now / PUSH_WINDOW_NS;
    if (counted->push_window != window) {
        counted->push_window = window;
        counted->push_in_window = 0;
    }
    if (counted->push_in_window >= config->push_per_window)
        return;
    struct ach_relayed_event *event = bpf_ringbuf_reserve(&relayed_for, sizeof(*event), 0);
    if (!event)
        return;
    event->vni = relayed->vni;
    ach_copy_ip(event->ip, relayed->ip);
    event->vtep = relayed->vtep;
    bpf_ringbuf_submit(event, 0);
    bpf_map_update_elem(&pushed, relayed, &now, BPF_ANY);
    counted->push_in_window++;
}

#endif
