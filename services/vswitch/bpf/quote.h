/* ICMP errors (RFC 792, RFC 4443) belong to the session that they quote: they pass where a packet
 * of it in the same direction would, and never make one. */
#ifndef VSWITCH_QUOTE_H
#define VSWITCH_QUOTE_H

#include "ipv6.h"

/* Where a quote is, and what it says. */
struct quote {
    __u32 at;   /* of the quoted IP header in the frame, then of its transport */
    __u8 *from; /* 16 bytes each */
    __u8 *to;
    __u8 proto;
};

static __always_inline int quote_ipv4(struct __sk_buff *skb, struct quote *quote) {
    struct iphdr ip;
    if (bpf_skb_load_bytes(skb, quote->at, &ip, sizeof(ip)))
        return -ACH_DROP_TRUNCATED;
    if (ip.version != 4 || ip.ihl < 5 || ip.frag_off & bpf_htons(ACH_OFFSET))
        return -ACH_DROP_UNRELATED_ICMP;
    ach_map_ipv4(quote->from, ip.saddr);
    ach_map_ipv4(quote->to, ip.daddr);
    quote->proto = ip.protocol;
    quote->at += ip.ihl * 4;
    return 0;
}

static __always_inline int quote_ipv6(struct __sk_buff *skb, struct quote *quote) {
    __u8 head[8] __attribute__((aligned(4)));
    if (bpf_skb_load_bytes(skb, quote->at, head, sizeof(head)) ||
        bpf_skb_load_bytes(skb, quote->at + 8, quote->from, 16) ||
        bpf_skb_load_bytes(skb, quote->at + 24, quote->to, 16))
        return -ACH_DROP_TRUNCATED;
    if (head[0] >> 4 != 6)
        return -ACH_DROP_UNRELATED_ICMP;
    struct ipv6_chain chain = {
        .at = quote->at + sizeof(struct ipv6hdr), .left = 0xffff, .next = head[6]};
    int error = ipv6_walk(skb, &chain);
    if (error || chain.place & bpf_htons(0xfff8))
        return -ACH_DROP_UNRELATED_ICMP;
    quote->at = chain.at;
    quote->proto = chain.next;
    return 0;
}

/* The packet takes the place of an answer to the quoted one: its sender is whom that was sent to.
 */
static __always_inline int quote_transport(struct __sk_buff *skb, const struct quote *quote,
                                           struct ach_packet *packet) {
    __u8 head[8] __attribute__((aligned(4)));
    packet->sport = packet->dport = 0;
    packet->icmp_type = packet->icmp_code = 0;
    packet->proto = quote->proto;
    switch (quote->proto) {
    case IPPROTO_TCP:
    case IPPROTO_UDP:
    case IPPROTO_ICMP:
    case ACH_PROTO_ICMP6:
        break;
    default:
        return 0;
    }
    if (bpf_skb_load_bytes(skb, quote->at, head, sizeof(head)))
        return -ACH_DROP_TRUNCATED;
    if (quote->proto == IPPROTO_TCP || quote->proto == IPPROTO_UDP) {
        packet->dport = *(ach_half *)head;
        packet->sport = *(ach_half *)(head + 2);
        return 0;
    }
    /* The answer's type, by which rules know an echo. */
    switch (head[0]) {
    case ACH_ICMP_ECHO:
        packet->icmp_type = ACH_ICMP_ECHO_REPLY;
        break;
    case ACH_ICMP_ECHO_REPLY:
        packet->icmp_type = ACH_ICMP_ECHO;
        break;
    case ICMP6_ECHO:
    case ICMP6_ECHO_REPLY:
        packet->icmp_type = head[0] ^ ICMP6_ECHO ^ ICMP6_ECHO_REPLY;
        break;
    default: /* no session is known by it */
        return -ACH_DROP_UNRELATED_ICMP;
    }
    packet->sport = packet->dport = *(ach_half *)(head + 4);
    return 0;
}

/* Reads the packet that the ICMP error in `skb` quotes from `at` in the frame on; the packet in
 * `scratch` is then what an answer to it would be. Only its sender may be told. */
__noinline int read_quote(struct __sk_buff *skb, __u32 at) {
    struct packet_scratch *kept = packet_scratch();
    if (!kept)
        return -ACH_DROP_TRUNCATED;
    struct ach_packet *packet = &kept->packet;
    struct quote quote = {.at = at, .from = kept->quoted[0], .to = kept->quoted[1]};
    int error = packet->family == 6 ? quote_ipv6(skb, &quote) : quote_ipv4(skb, &quote);
    if (error)
        return error;
    if (!ach_same_ip(quote.from, packet->to.ip))
        return -ACH_DROP_UNRELATED_ICMP;
    ach_copy_ip(packet->from.ip, quote.to);
    return quote_transport(skb, &quote, packet);
}

#endif
