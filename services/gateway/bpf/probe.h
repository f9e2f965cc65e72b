/* "Is the gateway alive, are its tables fresh": answered by turning the question round. */
#ifndef GATEWAY_PROBE_H
#define GATEWAY_PROBE_H

#include "ach_vxlan.h"
#include "maps.h"

#define PROBE_VERSION 1
#define PROBE_REQUEST 1
#define PROBE_REPLY   2
#define NS_PER_MS     1000000

#define PROBE_AT     (sizeof(struct ethhdr) + sizeof(struct iphdr) + sizeof(struct udphdr))
#define UDP_CHECK_AT (PROBE_AT - sizeof(struct udphdr) + __builtin_offsetof(struct udphdr, check))

/* Saturates; so does the age of a heartbeat that never was. */
static __always_inline __be32 heartbeat_age_ms(const struct ach_gateway_config *config) {
    __u64 heartbeat = config->heartbeat_ns;
    __s64 age = bpf_ktime_get_ns() - heartbeat;
    __u64 ms = age < 0 ? 0 : age / NS_PER_MS; /* renewed after we read the clock */
    return bpf_htonl(heartbeat && ms < ~0u ? ms : ~0u);
}

/* Swapping addresses and ports leaves the UDP checksum right; only what the answer changes in
 * the payload is worked into it, where there is one. */
static __always_inline int answer_probe(struct __sk_buff *skb, struct ach_cursor *at,
                                        struct iphdr *ip, struct udphdr *udp,
                                        const struct ach_gateway_config *config) {
    struct ethhdr *eth = (void *)ip - sizeof(*eth);
    struct ach_probe *probe = ach_take(at, sizeof(*probe));
    if (!probe || at->left || probe->magic != bpf_htonl(ACH_PROBE_MAGIC) ||
        probe->version != PROBE_VERSION || probe->type != PROBE_REQUEST)
        return -ACH_DROP_BAD_PROBE;

    __u8 mac[6] __attribute__((aligned(2)));
    ach_copy_mac(mac, eth->h_source);
    ach_copy_mac(eth->h_source, eth->h_dest);
    ach_copy_mac(eth->h_dest, mac);
    __be32 asker = ip->saddr;
    ip->saddr = ip->daddr;
    ip->daddr = asker;
    __be16 port = udp->source;
    udp->source = udp->dest;
    udp->dest = port;

    struct ach_probe reply = *probe;
    reply.type = PROBE_REPLY;
    reply.heartbeat_age_ms = heartbeat_age_ms(config);
    __s64 difference =
        bpf_csum_diff((void *)probe, sizeof(*probe), (void *)&reply, sizeof(reply), 0);
    *probe = reply;
    if (difference < 0 ||
        bpf_l4_csum_replace(skb, UDP_CHECK_AT, 0, difference, BPF_F_MARK_MANGLED_0))
        return -ACH_DROP_BAD_PROBE;
    return bpf_redirect(skb->ifindex, 0);
}

#endif
