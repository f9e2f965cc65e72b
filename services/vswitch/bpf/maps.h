/* The vSwitch's maps; what they hold is said in ach_layout.h. Sizes are defaults: the agent sets
 * its own when it loads. */
#ifndef VSWITCH_MAPS_H
#define VSWITCH_MAPS_H

#include "ach_layout.h"

#define PORTS      1024
#define FC_SLOTS   65536
#define VTEPS      65536
#define RULE_SETS  4096
#define RULE_WORDS 2097152
#define SESSIONS   262144

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct ach_vswitch_config);
} config SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, PORTS);
    __type(key, __u32);
    __type(value, struct ach_port);
} ports SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, PORTS);
    __type(key, __u32);
    __type(value, struct ach_lease);
} leases SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, PORTS);
    __type(key, __u32);
    __type(value, __u32);
} port_by_ifindex SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4 * PORTS);
    __type(key, struct ach_vni_ip);
    __type(value, __u32);
} endpoints SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, PORTS);
    __type(key, __u32);
    __type(value, __u32);
} vnis SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, RULE_SETS);
    __type(key, __u32);
    __type(value, struct ach_ruleset);
} acl_sets SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, RULE_WORDS);
    __type(key, __u32);
    __type(value, __u64);
} acl_words SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, FC_SLOTS);
    __type(key, struct ach_vni_ip);
    __type(value, __u32);
} fc_index SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, FC_SLOTS);
    __type(key, __u32);
    __type(value, struct ach_fc_entry);
} fc SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, SESSIONS);
    __type(key, struct ach_session_key);
    __type(value, struct ach_session);
} sessions SEC(".maps");

/* A session before it enters the map: the stack is too small for it. */
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct ach_session);
} session_blank SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, PORTS);
    __type(key, __u32);
    __type(value, struct ach_session_counts);
} session_counts SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, SESSIONS);
    __type(key, __u32);
    __type(value, struct ach_session_key);
} session_ring SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct ach_session_hands);
} session_hands SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, ACH_GATEWAY_SHARDS *ACH_GATEWAY_SLOTS);
    __type(key, __u32);
    __type(value, __be32);
} gateways SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, VTEPS);
    __type(key, __be32);
    __type(value, __u8);
} vteps SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, PORTS);
    __type(key, __u32);
    __type(value, struct ach_port_counters);
} counters SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 20);
} learn SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 20);
} samples SEC(".maps");

/* What was relayed to a destination since its last pause. CPUs may lose each other's counts. */
struct relayed_flow {
    __u64 first_ns;
    __u64 last_ns;
    __u64 told_ns; /* of the last learn event, 0: none */
    __u64 packets;
    __u64 bytes;
};

/* Forgotten entries only mean that counting starts again, or that one event more is sent. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, FC_SLOTS);
    __type(key, struct ach_vni_ip);
    __type(value, struct relayed_flow);
} relayed SEC(".maps");

struct fragment_key {
    struct ach_vni_ip from;
    __u8 to[16];
    __u32 id;
    __u8 proto; /* IPv6: next header of the fragment header */
    __u8 family;
    __u16 reserved;
};

struct fragment_ports {
    __be16 sport;
    __be16 dport;
    __u16 headers; /* bytes of the first fragment that later ones may not overwrite */
    __u8 proto;    /* of the transport */
    __u8 icmp_type;
    __u8 icmp_code;
    __u8 reserved;
};

/* The ports of datagrams whose first fragment was seen; whether it passed is its session's matter.
 */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 16384);
    __type(key, struct fragment_key);
    __type(value, struct fragment_ports);
} fragments SEC(".maps");

/* ICMP errors made for a vNIC on this CPU in this 100 ms. Indexed by slot, as the counters are. */
struct icmp_budget {
    __u64 window;
    __u64 made;
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, PORTS);
    __type(key, __u32);
    __type(value, struct icmp_budget);
} icmp_budgets SEC(".maps");

/* Types that Python asks BTF for and no map names. */
const struct ach_learn_event *ach_learn_event_btf __attribute__((unused));
const struct ach_drop_sample *ach_drop_sample_btf __attribute__((unused));
const enum ach_drop *ach_drop_btf __attribute__((unused));
const enum ach_port_flags *ach_port_flags_btf __attribute__((unused));
const enum ach_session_state *ach_session_state_btf __attribute__((unused));
const enum ach_session_flags *ach_session_flags_btf __attribute__((unused));
const enum ach_vtep_kind *ach_vtep_kind_btf __attribute__((unused));

static __always_inline struct ach_vswitch_config *vswitch_config(void) {
    __u32 only = 0;
    return bpf_map_lookup_elem(&config, &only);
}

static __always_inline struct ach_port_counters *counters_of(__u32 slot) {
    return bpf_map_lookup_elem(&counters, &slot);
}

/* A port that is in use, or NULL. */
static __always_inline struct ach_port *port_in(__u32 slot) {
    struct ach_port *port = bpf_map_lookup_elem(&ports, &slot);
    return port && port->generation & 1 ? port : NULL;
}

#endif
