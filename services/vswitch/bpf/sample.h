/* Dropped packets that a person may look at: their headers, and why. Limited per vNIC and CPU, so
 * that a flood costs little more than its counting. */
#ifndef VSWITCH_SAMPLE_H
#define VSWITCH_SAMPLE_H

#include "maps.h"
#include "scratch.h"

#define SAMPLE_WINDOW_NS 100000000ull

/* The first bytes of the frame; returns how many. */
static __always_inline __u64 sample_frame(struct __sk_buff *skb, __u8 *frame) {
    __u64 kept = skb->len;
    if (kept > ACH_SAMPLE_BYTES)
        kept = ACH_SAMPLE_BYTES;
    asm volatile("" : "+r"(kept)); /* one register, so that the verifier sees both bounds */
    if (!kept)
        return 0;
    return bpf_skb_load_bytes(skb, 0, frame, kept) ? 0 : kept;
}

static __always_inline bool sample_allowed(struct ach_port_counters *counted, __u64 now,
                                           const struct ach_vswitch_config *config) {
    __u64 window = now / SAMPLE_WINDOW_NS;
    if (counted->sample_window != window) {
        counted->sample_window = window;
        counted->samples_in_window = 0;
    }
    return counted->samples_in_window++ < config->samples_per_window;
}

/* The rule that denied, as the last question on this CPU left it. */
static __always_inline void sample_rule(struct ach_drop_sample *sample, __u32 reason) {
    struct packet_scratch *kept = packet_scratch();
    bool denied = reason == ACH_DROP_ACL_EGRESS || reason == ACH_DROP_ACL_INGRESS;
    sample->rule_set = denied && kept ? kept->query.set : 0;
    sample->rule = denied && kept ? kept->query.rule : ACL_NO_RULE;
}

/* A function of its own: the programs' stacks are nearly full, and drops are no hot path. */
static __noinline int sample_drop(struct __sk_buff *skb, __u32 slot, __u32 reason) {
    const struct ach_vswitch_config *config = vswitch_config();
    struct ach_port_counters *counted = counters_of(slot);
    if (!config || !counted)
        return 0;
    __u64 now = bpf_ktime_get_ns();
    struct ach_drop_sample *sample = NULL;
    if (sample_allowed(counted, now, config))
        sample = bpf_ringbuf_reserve(&samples, sizeof(*sample), 0);
    if (!sample) {
        counted->samples_lost++;
        return 0;
    }
    const struct ach_port *port = bpf_map_lookup_elem(&ports, &slot);
    sample->at_ns = now;
    sample->slot = slot;
    sample->generation = port ? port->generation : 0;
    sample->reason = reason;
    sample_rule(sample, reason);
    sample->length = skb->len;
    sample->underlay = skb->ifindex == config->underlay_ifindex;
    sample->reserved = 0;
    sample->kept = sample_frame(skb, sample->frame);
    bpf_ringbuf_submit(sample, 0);
    return 0;
}

#endif
