/* What the packet path keeps beside its stack, which is nearly full. */
#ifndef VSWITCH_SCRATCH_H
#define VSWITCH_SCRATCH_H

#include "ach_parse.h"
#include "classify.h"
#include "maps.h"

/* A program runs on its CPU to its end before the next one does. */
struct packet_scratch {
    struct ach_packet packet;
    struct fragment_key fragment;
    struct fragment_ports ports;
    __u8 quoted[2][16]; /* addresses of the packet that an ICMP error quotes: from, to */
    struct acl_query query;
    __u32 stride; /* of reclaim_step: from the last key to the next; here, for the verifier would
                     walk a loop for each value that it knows */
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct packet_scratch);
} packet_scratches SEC(".maps");

static __always_inline struct packet_scratch *packet_scratch(void) {
    __u32 only = 0;
    return bpf_map_lookup_elem(&packet_scratches, &only);
}

/* Asks for the other end of that identity; nothing is left of the question before. */
static __always_inline struct acl_query *ask(struct packet_scratch *kept, __s32 identity) {
    kept->query.identity = identity;
    return &kept->query;
}

#endif
