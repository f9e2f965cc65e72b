/* Finds a route in the agent's own table, which it goes on writing meanwhile.
 *
 * Why a route that is found is never a mixture of two: a slot is one aligned word, which the agent
 * stores when key and value of the row are there; it changes a route by filling another row and
 * then storing the slot anew; and it does not write to a row that slots no longer lead to before
 * all programs that ran then have ended (bpf/grace.py), as this one does before the packet goes on.
 * So what a slot leads to stands still while we look at it. Stores become visible in their order,
 * as they do on x86; what we load depends on the slot. A key never moves to another slot, and a
 * bucket counts those beyond it for as long as one may lie there: a route that is there all the
 * time is always found. */
#ifndef GATEWAY_ROUTES_H
#define GATEWAY_ROUTES_H

#include "ach_addr.h"
#include "ach_trace.h"
#include "maps.h"

#ifdef ACH_TRACE
struct { /* never has an entry: a trace tells of one look-up in `routes`, not of its steps */
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1);
    __type(key, struct ach_vni_ip);
    __type(value, struct ach_route);
} routes SEC(".maps");

#define TRACE_ROUTE(to, route)                                                                     \
    trace_step(TRACE_ID(&routes), TRACE_OF_MAP(ACH_TRACE_LOOKUP, &routes), to, route)
#else
#define TRACE_ROUTE(to, route) ((void)0)
#endif

struct route_search {
    struct ach_route_key wanted;
    __u64 tag;
    __u32 at; /* the bucket to look into */
    __u32 mask;
    __u32 row; /* 0: not found */
};

static __always_inline bool is_row_of(__u32 row, const struct ach_route_key *wanted) {
    const struct ach_route_key *key = trace_plain_lookup(&route_keys, &row);
    return key && key->ip[0] == wanted->ip[0] && key->ip[1] == wanted->ip[1] &&
           key->vni == wanted->vni;
}

/* For bpf_loop, of which the verifier walks one step: 1 ends the search. */
static long search_bucket(__u32 far, void *context) {
    struct route_search *search = context;
    __u32 at = search->at;
    const struct ach_route_bucket *bucket = trace_plain_lookup(&route_buckets, &at);
    const volatile __u64 *passed = trace_plain_lookup(&route_passed, &at);
    if (!bucket || !passed)
        return 1;
    for (int slot = 0; slot < ACH_ROUTE_SLOTS; slot++) {
        __u64 word = *(const volatile __u64 *)&bucket->slots[slot];
        if ((word ^ search->tag) >> 32)
            continue;
        __u32 row = (__u32)word - 1;
        if (is_row_of(row, &search->wanted)) {
            search->row = row;
            return 1;
        }
    }
    search->at = (at + 1) & search->mask;
    return !*passed;
}

static __always_inline struct ach_route *find_route(const struct ach_vni_ip *to) {
    __u32 only = 0;
    const struct ach_route_table *table = trace_plain_lookup(&route_table, &only);
    if (!table)
        return NULL;
    struct route_search search = {.wanted = {.vni = to->vni}, .mask = table->mask};
    __u64 *ip = search.wanted.ip;
    __builtin_memcpy(ip, to->ip, sizeof(search.wanted.ip));
    __u64 hash = ip[0] * table->factors[0] + ip[1] * table->factors[1] +
                 search.wanted.vni * table->factors[2];
    hash ^= hash >> 32;
    hash *= ACH_ROUTE_MIX;
    search.tag = hash << 32 | 1ull << 32;
    search.at = hash >> table->shift;
    bpf_loop(ACH_ROUTE_FARTHEST + 1, search_bucket, &search, 0);
    struct ach_route *route = search.row ? trace_plain_lookup(&route_values, &search.row) : NULL;
    TRACE_ROUTE(to, route);
    return route;
}

#endif
