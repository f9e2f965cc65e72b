/* The gateway's maps; what they hold is said in ach_layout.h. Sizes are defaults: the agent sets
 * its own when it loads. */
#ifndef GATEWAY_MAPS_H
#define GATEWAY_MAPS_H

#include "ach_layout.h"

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct ach_gateway_config);
} config SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct ach_route_table);
} route_table SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1024);
    __type(key, __u32);
    __type(value, struct ach_route_bucket);
} route_buckets SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1024);
    __type(key, __u32);
    __type(value, __u64);
} route_passed SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 4096);
    __type(key, __u32);
    __type(value, struct ach_route_key);
} route_keys SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 4096);
    __type(key, __u32);
    __type(value, struct ach_route);
} route_values SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, 65536);
    __type(key, __be32);
    __type(value, __u8);
} vteps SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct ach_gateway_counters);
} counters SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 18);
} relayed_for SEC(".maps");

/* Forgotten entries only mean that a route is pushed once more. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 65536);
    __type(key, struct ach_relayed_event);
    __type(value, __u64);
} pushed SEC(".maps");

/* Types that Python asks BTF for and no map names. */
const struct ach_relayed_event *ach_relayed_event_btf __attribute__((unused));
const struct ach_probe *ach_probe_btf __attribute__((unused));
const enum ach_drop *ach_drop_btf __attribute__((unused));
const enum ach_vtep_kind *ach_vtep_kind_btf __attribute__((unused));

static __always_inline struct ach_gateway_config *gateway_config(void) {
    __u32 only = 0;
    return bpf_map_lookup_elem(&config, &only);
}

static __always_inline struct ach_gateway_counters *gateway_counters(void) {
    __u32 only = 0;
    return bpf_map_lookup_elem(&counters, &only);
}

#endif
