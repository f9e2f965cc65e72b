/* IPv6 behind its fixed header: extension headers (RFC 8200), fragments, transports.
 *
 * Read by bpf_skb_load_bytes: offsets vary, and headers may lie beyond the linear part. */
#ifndef VSWITCH_IPV6_H
#define VSWITCH_IPV6_H

#include "fragment.h"

#define EXTENSIONS 6 /* headers that are followed */

#define IPV6_HOP_BY_HOP  0
#define IPV6_ROUTING     43
#define IPV6_FRAGMENT    44
#define IPV6_DESTINATION 60

#define ICMP6_ERRORS           128 /* types below it */
#define ICMP6_ECHO             128
#define ICMP6_ECHO_REPLY       129
#define ND_ROUTER_SOLICITATION 133
#define ND_REDIRECT            137

/* A place in the chain of headers. */
struct ipv6_chain {
    __u32 at;   /* in the frame */
    __u32 left; /* of the payload, from there on */
    __u8 next;  /* the kind of the header there */
    __u8 fragment_next;
    __be16 place;  /* of the fragment header, all 0 without or where it stands for the whole */
    __u32 id;      /* of the fragment header */
    __u32 divided; /* where the fragmentable part begins */
};

static __always_inline bool ipv6_is_extension(__u8 kind) {
    return kind == IPV6_HOP_BY_HOP || kind == IPV6_ROUTING || kind == IPV6_FRAGMENT ||
           kind == IPV6_DESTINATION;
}

/* Goes past one extension header, or only notes it where the packet is a later fragment. */
static __always_inline int ipv6_skip(struct __sk_buff *skb, struct ipv6_chain *chain, bool first) {
    __u8 head[8] __attribute__((aligned(4)));
    if (chain->left < sizeof(head) || bpf_skb_load_bytes(skb, chain->at, head, sizeof(head)))
        return -ACH_DROP_TRUNCATED;
    __u32 size = sizeof(head);
    if (chain->next == IPV6_FRAGMENT) {
        if (chain->divided)
            return -ACH_DROP_EXTENSION_HEADERS;
        chain->place = *(ach_half *)(head + 2) & bpf_htons(0xfff9);
        chain->id = *(ach_word *)(head + 4);
        chain->fragment_next = head[0];
        chain->divided = chain->at + size;
    } else {
        size += head[1] * 8u;
        /* Hop-by-hop options stand first. Routing headers of type 0 are an attack (RFC 5095). */
        if ((chain->next == IPV6_HOP_BY_HOP && !first) ||
            (chain->next == IPV6_ROUTING && head[2] == 0))
            return -ACH_DROP_EXTENSION_HEADERS;
    }
    if (size > chain->left)
        return -ACH_DROP_TRUNCATED;
    chain->next = head[0];
    chain->at += size;
    chain->left -= size;
    return 0;
}

/* Moves on to the transport, or to the payload of a later fragment. */
static __always_inline int ipv6_walk(struct __sk_buff *skb, struct ipv6_chain *chain) {
    for (int i = 0; i < EXTENSIONS; i++) {
        if (chain->place & bpf_htons(0xfff8) || !ipv6_is_extension(chain->next))
            return 0;
        int error = ipv6_skip(skb, chain, !i);
        if (error)
            return error;
    }
    return ipv6_is_extension(chain->next) ? -ACH_DROP_EXTENSION_HEADERS : 0;
}

/* Ports, or what stands for them. */
static __always_inline int ipv6_transport(struct __sk_buff *skb, const struct ipv6_chain *chain,
                                          struct ach_packet *packet) {
    __u8 head[20] __attribute__((aligned(4)));
    __u32 size = 0;
    if (chain->next == IPPROTO_TCP)
        size = 20;
    else if (chain->next == IPPROTO_UDP || chain->next == ACH_PROTO_ICMP6)
        size = 8;
    if (!size)
        return 0;
    if (chain->left < size || (size == 20 ? bpf_skb_load_bytes(skb, chain->at, head, 20)
                                          : bpf_skb_load_bytes(skb, chain->at, head, 8)))
        return -ACH_DROP_TRUNCATED;
    packet->headers += size;
    if (chain->next == ACH_PROTO_ICMP6) {
        packet->icmp_type = head[0];
        packet->icmp_code = head[1];
        packet->error = head[0] < ICMP6_ERRORS;
        if (head[0] == ICMP6_ECHO || head[0] == ICMP6_ECHO_REPLY)
            packet->sport = packet->dport = *(ach_half *)(head + 4);
        else
            ach_icmp_ports(packet);
        return head[0] >= ND_ROUTER_SOLICITATION && head[0] <= ND_REDIRECT ? -ACH_DROP_BAD_ND : 0;
    }
    packet->sport = *(ach_half *)head;
    packet->dport = *(ach_half *)(head + 2);
    if (size == 8)
        return 0;
    __u32 words = head[12] >> 4;
    if (words < 5 || words * 4 > chain->left)
        return -ACH_DROP_TRUNCATED;
    packet->tcp_flags = head[13];
    packet->headers += words * 4 - size;
    return 0;
}

/* Reads the packet in `scratch` on from `at` in the frame, behind the fixed header; `left` bytes of
 * payload follow. A global function: the verifier walks it once, by itself. */
__noinline int parse_ipv6_rest(struct __sk_buff *skb, __u32 at, __u32 left) {
    struct packet_scratch *kept = packet_scratch();
    if (!kept)
        return -ACH_DROP_TRUNCATED;
    struct ach_packet *packet = &kept->packet;
    struct ipv6_chain chain = {.at = at, .left = left, .next = packet->proto};
    int error = ipv6_walk(skb, &chain);
    if (error)
        return error;
    packet->headers += chain.at - at;
    packet->fragment_id = chain.id;
    packet->more = chain.place & bpf_htons(1) ? 1 : 0;
    packet->offset = bpf_ntohs(chain.place) >> 3;
    packet->proto = chain.fragment_next;
    fragment_key(kept);
    if (packet->offset)
        return fragment_recall(kept);
    packet->proto = chain.next;
    error = ipv6_transport(skb, &chain, packet);
    if (!error && packet->more)
        fragment_remember(kept, at + packet->headers - sizeof(struct ipv6hdr) - chain.divided);
    return error;
}

#endif
