/* What a packet meets, step by step, for `achelous trace`: in objects compiled with ACH_TRACE, each
 * look-up of a table, each write to one and each redirect also leaves a record in `trace_steps`.
 * Without it nothing here is compiled: the programs that packets run are not a byte larger. */
#ifndef ACH_TRACE_H
#define ACH_TRACE_H

#ifdef ACH_TRACE

#include "ach_drop.h"

#define TRACE_WORDS 96 /* bytes of a reason's words, at most */
#define TRACE_KEY   48
#define TRACE_VALUE 192

enum ach_trace_kind {
    ACH_TRACE_LOOKUP,
    ACH_TRACE_UPDATE,
    ACH_TRACE_DELETE,
    ACH_TRACE_RULE,     /* key: the struct acl_query after its answer; found: of outbound rules */
    ACH_TRACE_REDIRECT, /* table: the ifindex of the device that it goes out of */
    ACH_TRACE_PEER,     /* likewise; it comes out of the device's peer */
    ACH_TRACE_NEIGH,    /* likewise; to the neighbour that leads to the outer destination */
};

struct ach_trace_step {
    __u32 kind;  /* enum ach_trace_kind */
    __u32 table; /* the kernel's id of the map, or see above */
    __u32 found; /* of a look-up: there is an entry, which `value` shows */
    __u32 reserved;
    __u8 key[TRACE_KEY]; /* the first bytes of each, 0 behind their ends */
    __u8 value[TRACE_VALUE];
};

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 17);
} trace_steps SEC(".maps");

const struct ach_trace_step *ach_trace_step_btf __attribute__((unused));
const struct acl_query *acl_query_btf __attribute__((unused));
const enum ach_trace_kind *ach_trace_kind_btf __attribute__((unused));

/* What a person reads about each reason. */
const char ach_drop_words[ACH_DROP_COUNT][TRACE_WORDS] = {
#define TRACE_WORDS_OF(name, text) text,
    ACH_DROP_REASONS(TRACE_WORDS_OF)
#undef TRACE_WORDS_OF
};

/* The kernel's own description of a map, of which a program may read the id. */
struct bpf_map___id {
    __u32 id;
} __attribute__((preserve_access_index));

#define TRACE_ID(map) ((const struct bpf_map___id *)(map))->id

/* `shape`: kind | bytes of the key << 8 | bytes of the value << 16, which the verifier knows. A
 * function of its own, as the stacks of its callers are nearly full. */
static __noinline void trace_step(__u32 table, __u64 shape, const void *key, const void *value) {
    struct ach_trace_step *step = bpf_ringbuf_reserve(&trace_steps, sizeof(*step), 0);
    if (!step)
        return;
    __builtin_memset(step, 0, sizeof(*step));
    step->kind = shape & 0xff;
    step->table = table;
    step->found = !!value;
    bpf_probe_read_kernel(step->key, shape >> 8 & 0xff, key);
    if (value)
        bpf_probe_read_kernel(step->value, shape >> 16 & 0xff, value);
    bpf_ringbuf_submit(step, 0);
}

#define TRACE_MOST(size, most) ((__u64)((size) < (most) ? (size) : (most)))
#define TRACE_SHAPE(kind, key, value)                                                              \
    ((__u64)(kind) | TRACE_MOST(key, TRACE_KEY) << 8 | TRACE_MOST(value, TRACE_VALUE) << 16)
#define TRACE_OF_MAP(kind, map) TRACE_SHAPE(kind, sizeof(*(map)->key), sizeof(*(map)->value))

/* Per-CPU tables are the program's scratch and counters: no part of what decides. */
#define TRACE_TYPE(map)     (sizeof(*(map)->type) / sizeof(int))
#define TRACE_IS_TABLE(map) (TRACE_TYPE(map) != BPF_MAP_TYPE_PERCPU_ARRAY)
#define trace_plain_lookup  (bpf_map_lookup_elem)

#define bpf_map_lookup_elem(map, key)                                                              \
    ({                                                                                             \
        const void *trace_key = (key);                                                             \
        void *trace_value = trace_plain_lookup(map, trace_key);                                    \
        if (TRACE_IS_TABLE(map))                                                                   \
            trace_step(TRACE_ID(map), TRACE_OF_MAP(ACH_TRACE_LOOKUP, map), trace_key,              \
                       trace_value);                                                               \
        trace_value;                                                                               \
    })
#define bpf_map_update_elem(map, key, value, flags)                                                \
    ({                                                                                             \
        trace_step(TRACE_ID(map), TRACE_OF_MAP(ACH_TRACE_UPDATE, map), key, value);                \
        (bpf_map_update_elem)(map, key, value, flags);                                             \
    })
#define bpf_map_delete_elem(map, key)                                                              \
    ({                                                                                             \
        trace_step(TRACE_ID(map), TRACE_OF_MAP(ACH_TRACE_DELETE, map), key, NULL);                 \
        (bpf_map_delete_elem)(map, key);                                                           \
    })

#define TRACE_TO(kind, ifindex) trace_step(ifindex, kind, NULL, NULL)
#define bpf_redirect(ifindex, flags)                                                               \
    ({                                                                                             \
        TRACE_TO(ACH_TRACE_REDIRECT, ifindex);                                                     \
        (bpf_redirect)(ifindex, flags);                                                            \
    })
#define bpf_redirect_peer(ifindex, flags)                                                          \
    ({                                                                                             \
        TRACE_TO(ACH_TRACE_PEER, ifindex);                                                         \
        (bpf_redirect_peer)(ifindex, flags);                                                       \
    })
#define bpf_redirect_neigh(ifindex, params, size, flags)                                           \
    ({                                                                                             \
        TRACE_TO(ACH_TRACE_NEIGH, ifindex);                                                        \
        (bpf_redirect_neigh)(ifindex, params, size, flags);                                        \
    })

#define trace_rule(query, outbound)                                                                \
    trace_step(0, TRACE_SHAPE(ACH_TRACE_RULE, sizeof(*(query)), 0), query,                         \
               (outbound) ? (query) : NULL)

#else

#define trace_plain_lookup          bpf_map_lookup_elem
#define trace_rule(query, outbound) ((void)0)

#endif

#endif
