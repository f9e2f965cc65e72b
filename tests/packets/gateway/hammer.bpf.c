/* Looks routes up again and again while a test changes them: does any mix two states? */
#include "ach_kernel.h"

#include "ach_addr.h"
#include "routes.h"

#define ROUNDS 65536

const volatile __u32 vni;
const volatile __u32 addresses; /* 10.0.0.0 on; those of even numbers always have a route */

struct hammered {
    __u64 found;
    __u64 missing; /* of those that always have a route */
    __u64 mixed;   /* VTEP, MAC, identity and revision do not belong together */
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct hammered);
} hammered SEC(".maps");

/* A test gives all fields of a route one number, from the VTEP to the revision. */
static __always_inline bool is_mixed(const struct ach_route *route) {
    __u32 number = bpf_ntohl(route->vtep);
    __u32 mac = route->mac[0] << 24 | route->mac[1] << 16 | route->mac[2] << 8 | route->mac[3];
    return mac != number || route->identity != (number & 0xffff) || route->revision != number;
}

static long look(__u32 round, void *context) {
    __u32 only = 0;
    struct hammered *count = bpf_map_lookup_elem(&hammered, &only);
    if (!count)
        return 1;
    __u32 number = bpf_get_prandom_u32() % (addresses ?: 1);
    struct ach_vni_ip to = {.vni = vni};
    ach_map_ipv4(to.ip, bpf_htonl(0x0a000000 + number));
    const struct ach_route *route = find_route(&to);
    if (!route)
        count->missing += number % 2 == 0;
    else if (is_mixed(route))
        count->mixed++;
    else
        count->found++;
    return 0;
}

SEC("tc")
int hammer(struct __sk_buff *skb) {
    return bpf_loop(ROUNDS, look, NULL, 0) != ROUNDS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
