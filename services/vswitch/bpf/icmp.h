/* ICMP and ICMPv6 that the router of a guest sends: errors (RFC 792, RFC 1191, RFC 4443) and the
 * answer to a ping. The guest's frame is turned into them and goes back where it came from. */
#ifndef VSWITCH_ICMP_H
#define VSWITCH_ICMP_H

#include "deliver.h"
#include "router.h"
#include "sample.h"

#define ICMP_QUOTED    512 /* bytes at most: within 576 (RFC 1812) and 1280 (RFC 4443) */
#define ICMP_WINDOW_NS 100000000ull
#define ICMP_BUDGET    20 /* errors for a vNIC on each CPU in that time */
#define ROUTER_TTL     64

struct icmp_error4 {
    struct iphdr ip;
    __u8 type, code;
    __u16 check;
    __be32 detail;
};

struct icmp_error6 {
    struct ipv6hdr ip;
    __u8 type, code;
    __u16 check;
    __be32 detail;
};

static __always_inline __u16 icmp_fold(__u64 sum) {
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return ~(sum + (sum >> 16));
}

static __always_inline bool icmp_within_budget(__u32 slot) {
    struct icmp_budget *budget = bpf_map_lookup_elem(&icmp_budgets, &slot);
    if (!budget)
        return false;
    __u64 window = bpf_ktime_get_ns() / ICMP_WINDOW_NS;
    if (budget->window != window) {
        budget->window = window;
        budget->made = 0;
    }
    return budget->made++ < ICMP_BUDGET;
}

/* Type and code, as type << 8 | code. */
static __always_inline __u32 icmp_kind(__u32 reason, bool six) {
    switch (reason) {
    case ACH_DROP_TTL_EXPIRED:
        return six ? 3 << 8 : ACH_ICMP_TIME_EXCEEDED << 8;
    case ACH_DROP_TOO_BIG:
        return six ? 2 << 8 : ACH_ICMP_UNREACHABLE << 8 | 4;
    default: /* the port is unreachable */
        return six ? 1 << 8 | 4 : ACH_ICMP_UNREACHABLE << 8 | 3;
    }
}

static __always_inline void icmp_write4(struct icmp_error4 *error, const struct ach_port *port,
                                        __u32 kind, __u32 mtu, __u32 quoted) {
    struct iphdr ip = {
        .version = 4,
        .ihl = 5,
        .tot_len = bpf_htons(sizeof(*error) + quoted),
        .frag_off = bpf_htons(ACH_DF),
        .ttl = ROUTER_TTL,
        .protocol = IPPROTO_ICMP,
        .saddr = ach_words(port->router)[3],
        .daddr = ach_words(port->ip)[3],
    };
    ip.check = ach_ipv4_checksum(&ip);
    error->ip = ip;
    error->type = kind >> 8;
    error->code = kind;
    error->check = 0;
    error->detail = bpf_htonl(mtu);
    error->check =
        icmp_fold((__u32)bpf_csum_diff(NULL, 0, (void *)&error->type, 8 + ICMP_QUOTED, 0));
}

static __always_inline void icmp_write6(struct icmp_error6 *error, const struct ach_port *port,
                                        __u32 kind, __u32 mtu, __u32 quoted) {
    __u32 length = sizeof(*error) - sizeof(error->ip) + quoted;
    *(ach_word *)&error->ip = bpf_htonl(0x60000000);
    error->ip.payload_len = bpf_htons(length);
    error->ip.nexthdr = ACH_PROTO_ICMP6;
    error->ip.hop_limit = ROUTER_TTL;
    ach_copy_ip((__u8 *)&error->ip.saddr, port->router6);
    ach_copy_ip((__u8 *)&error->ip.daddr, port->ip6);
    error->type = kind >> 8;
    error->code = kind;
    error->check = 0;
    error->detail = bpf_htonl(mtu);
    /* Addresses, message and quote lie side by side; length and protocol complete the sum. */
    __u64 sum = (__u32)bpf_csum_diff(NULL, 0, (void *)&error->ip.saddr, 32 + 8 + ICMP_QUOTED, 0);
    error->check = icmp_fold(sum + bpf_htonl(length) + bpf_htonl(ACH_PROTO_ICMP6));
}

/* Back to the guest, from its router. */
static __always_inline int icmp_return(struct __sk_buff *skb, const struct ach_port *port) {
    struct ethhdr *eth = (void *)(long)skb->data;
    if ((void *)(eth + 1) > (void *)(long)skb->data_end)
        return -ACH_DROP_TRUNCATED;
    ach_copy_mac(eth->h_dest, port->mac);
    ach_copy_mac(eth->h_source, router_mac);
    return bpf_redirect(skb->ifindex, 0);
}

/* Writes the error in front of the packet, the quote being filled up with zeros. */
static __always_inline int icmp_make(struct __sk_buff *skb, const struct ach_port *port, __u32 kind,
                                     __u32 mtu, __u32 quoted, bool six) {
    const __u32 eth = sizeof(struct ethhdr);
    __u32 headers = six ? sizeof(struct icmp_error6) : sizeof(struct icmp_error4);
    if (bpf_skb_change_tail(skb, eth + quoted, 0) ||
        bpf_skb_change_tail(skb, eth + ICMP_QUOTED, 0) ||
        bpf_skb_adjust_room(skb, headers, BPF_ADJ_ROOM_MAC, 0) ||
        bpf_skb_pull_data(skb, eth + headers + ICMP_QUOTED))
        return -ACH_DROP_ENCAP_FAILED;
    void *at = (void *)(long)skb->data + eth, *end = (void *)(long)skb->data_end;
    if (six) {
        if (at + sizeof(struct icmp_error6) + ICMP_QUOTED > end)
            return -ACH_DROP_ENCAP_FAILED;
        icmp_write6(at, port, kind, mtu, quoted);
    } else {
        if (at + sizeof(struct icmp_error4) + ICMP_QUOTED > end)
            return -ACH_DROP_ENCAP_FAILED;
        icmp_write4(at, port, kind, mtu, quoted);
    }
    return bpf_skb_change_tail(skb, eth + headers + quoted, 0) ? -ACH_DROP_ENCAP_FAILED : 0;
}

/* Drops the packet of the vNIC in `slot` for that reason and tells the guest. `length` is that of
 * the IP packet, `mtu` what it should have been. Returns a verdict, the drop being counted, or the
 * drop where no error may be made (too many). */
__noinline int refuse(struct __sk_buff *skb, __u32 slot, __u32 reason, __u32 mtu, __u32 length) {
    const struct ach_port *port = port_in(slot);
    struct ach_port_counters *counted = counters_of(slot);
    struct ethhdr *eth = (void *)(long)skb->data;
    if (!port || !counted || (void *)(eth + 1) > (void *)(long)skb->data_end ||
        !icmp_within_budget(slot))
        return -(int)reason;
    bool six = eth->h_proto == bpf_htons(ACH_ETH_IPV6);
    __u32 quoted = length < ICMP_QUOTED ? length : ICMP_QUOTED;
    sample_drop(skb, slot, reason); /* while it is still what the guest sent */
    if (icmp_make(skb, port, icmp_kind(reason, six), mtu, quoted, six))
        return -(int)reason;
    counted->drops[reason & (ACH_DROP_SLOTS - 1)]++; /* the mask is for the verifier */
    return icmp_return(skb, port);
}

/* Turns an echo request to the router into its reply: addresses change places, the sums stay right
 * but for the type and the time to live. */
__noinline int answer_ping(struct __sk_buff *skb, __u32 slot) {
    const struct ach_port *port = port_in(slot);
    const __u32 eth = sizeof(struct ethhdr);
    if (bpf_skb_pull_data(skb, eth + 60 + 8) && bpf_skb_pull_data(skb, 0))
        return -ACH_DROP_TRUNCATED;
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    if (!port || data + eth + sizeof(struct iphdr) + 8 > end)
        return -ACH_DROP_TRUNCATED;
    bool six = ((struct ethhdr *)data)->h_proto == bpf_htons(ACH_ETH_IPV6);
    __u8 *icmp;
    if (six) {
        struct ipv6hdr *ip = data + eth;
        icmp = (void *)(ip + 1);
        if ((void *)icmp + 8 > end || ip->nexthdr != ACH_PROTO_ICMP6)
            return -ACH_DROP_FOR_ROUTER;
        __u8 asker[16] __attribute__((aligned(4)));
        ach_copy_ip(asker, (__u8 *)&ip->saddr);
        ach_copy_ip((__u8 *)&ip->saddr, (__u8 *)&ip->daddr);
        ach_copy_ip((__u8 *)&ip->daddr, asker);
        ip->hop_limit = ROUTER_TTL;
    } else {
        struct iphdr *ip = data + eth;
        if (ip->ihl != 5)
            return -ACH_DROP_FOR_ROUTER;
        icmp = (void *)(ip + 1);
        __be32 asker = ip->saddr;
        ip->saddr = ip->daddr;
        ip->daddr = asker;
        ip->ttl = ROUTER_TTL;
        ip->check = 0;
        ip->check = ach_ipv4_checksum(ip);
    }
    __u32 was = *(ach_half *)icmp;
    icmp[0] = six ? ICMP6_ECHO_REPLY : ACH_ICMP_ECHO_REPLY;
    __u32 sum = (__u16) ~*(ach_half *)(icmp + 2) + (__u16)~was + (__u32) * (ach_half *)icmp;
    /* 0 and 0xffff are the same sum, but of a reply that is all zeros only the latter is right
     * (RFC 1624, 3). */
    __u16 check = icmp_fold(sum);
    *(ach_half *)(icmp + 2) = check ? check : 0xffff;
    return icmp_return(skb, port);
}

#endif
