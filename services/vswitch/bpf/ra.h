/* Router solicitations (RFC 4861): answered with the advertisement that the agent has prepared. */
#ifndef VSWITCH_RA_H
#define VSWITCH_RA_H

#include "reply.h"

#define RS_LEN      8
#define RS_SOURCE   1  /* option: the sender's link-layer address */
#define RS_OPTIONS  16 /* as many are looked at */
#define RA_CHECKSUM (ETH_LEN + IP6_LEN + 2)

struct rs_walk {
    struct __sk_buff *skb;
    __u32 at, end;
    bool has_source, bad;
};

static long rs_option(__u32 index, struct rs_walk *walk) {
    __u8 head[2]; /* type, and length in 8 bytes */
    if (walk->at == walk->end)
        return 1;
    walk->bad = walk->at + 8 > walk->end || bpf_skb_load_bytes(walk->skb, walk->at, head, 2) ||
                !head[1] || walk->at + 8 * head[1] > walk->end;
    if (walk->bad)
        return 1;
    walk->has_source |= head[0] == RS_SOURCE;
    walk->at += 8 * head[1];
    return 0;
}

/* The checks of RFC 4861, section 6.1.1. Returns 0 or a drop reason. */
static __always_inline int rs_read(struct reply *reply, struct ipv6hdr *ip) {
    struct __sk_buff *skb = reply->skb;
    static const struct in6_addr nobody = {};
    __u8 code;
    if (bpf_skb_load_bytes(skb, ETH_LEN, ip, sizeof(*ip)) ||
        bpf_skb_load_bytes(skb, ETH_LEN + IP6_LEN + 1, &code, 1))
        return -ACH_DROP_TRUNCATED;
    bool unspecified = same_ip6(&nobody, ip->saddr.in6_u.u6_addr8);
    if (!unspecified && !is_link_local(&ip->saddr) && !same_ip6(&ip->saddr, reply->port->ip6))
        return -ACH_DROP_SPOOFED_IP;
    __u32 len = bpf_ntohs(ip->payload_len);
    struct rs_walk walk = {
        .skb = skb,
        .at = ETH_LEN + IP6_LEN + RS_LEN,
        .end = ETH_LEN + IP6_LEN + len,
    };
    if (walk.end > skb->len)
        return -ACH_DROP_TRUNCATED;
    if (ip->version != 6 || ip->hop_limit != HOP_LIMIT || code || len < RS_LEN)
        return -ACH_DROP_BAD_RS;
    bpf_loop(RS_OPTIONS, rs_option, &walk, 0);
    return walk.bad || (unspecified && walk.has_source) ? -ACH_DROP_BAD_RS : 0;
}

static __always_inline int router_answer(struct reply *reply) {
    struct ipv6hdr ip;
    int error = rs_read(reply, &ip);
    if (error)
        return error;
    struct in6_addr to = ip.saddr;
    if (!to.in6_u.u6_addr8[0]) { /* it has no address yet: to all nodes */
        to.in6_u.u6_addr8[0] = 0xff;
        to.in6_u.u6_addr8[1] = 0x02;
        to.in6_u.u6_addr8[15] = 1;
    }
    reply_begin(reply);
    append_ipv6(reply, &to, SERVICES_ICMPV6);
    append_prepared(reply, reply->lease->advert, 0, reply->lease->advert_len);
    finish_ipv6(reply, &to, SERVICES_ICMPV6, RA_CHECKSUM);
    return reply_send(reply);
}

#endif
