/* DHCP (RFC 2131): a vNIC has one address, and the host that runs it tells its guest. Nothing is
 * remembered: an offer and a lease are the same whenever they are asked for. */
#ifndef VSWITCH_DHCP4_H
#define VSWITCH_DHCP4_H

#include "reply.h"

#define DHCP4_REQUEST   1
#define DHCP4_REPLY     2
#define DHCP4_COOKIE    0x63825363
#define DHCP4_BROADCAST 0x8000
#define DHCP4_AT        (ETH_LEN + IP4_LEN + UDP_LEN)
#define DHCP4_OPTIONS   512 /* as many are looked at, padding included */
#define DHCP4_CLIENT    68  /* port */

/* Prepared by the agent: the server's identifier, the times of the lease, and the rest. */
#define DHCP4_TIMES 6
#define DHCP4_REST  24

enum dhcp4_type {
    DHCP4_DISCOVER = 1,
    DHCP4_OFFER = 2,
    DHCP4_ASK = 3, /* DHCPREQUEST */
    DHCP4_DECLINE = 4,
    DHCP4_ACK = 5,
    DHCP4_NAK = 6,
    DHCP4_RELEASE = 7,
    DHCP4_INFORM = 8,
};

enum dhcp4_option {
    DHCP4_PAD = 0,
    DHCP4_REQUESTED = 50,
    DHCP4_TYPE = 53,
    DHCP4_SERVER = 54,
    DHCP4_CLIENT_ID = 61,
    DHCP4_END = 255,
};

struct dhcp4 {
    __u8 op, htype, hlen, hops;
    __be32 xid;
    __be16 secs, flags;
    __be32 ciaddr, yiaddr, siaddr, giaddr;
    __u8 chaddr[16];
} __attribute__((packed));

struct dhcp4_frame {
    struct ethhdr eth;
    struct iphdr ip;
    struct udphdr udp;
    struct dhcp4 dhcp;
    __u8 names[192]; /* of server and boot file: none */
    __be32 cookie;
} __attribute__((packed));

struct dhcp4_walk {
    struct __sk_buff *skb;
    __u32 at, end;
    __u32 client_at, client_len; /* of the whole option */
    __be32 requested, server;
    __u8 type;
    bool ended;
    __u32 bad; /* no bool: the verifier does not know that it is 0 or 1 */
};

static __always_inline long dhcp4_wrong(struct dhcp4_walk *walk) {
    walk->bad = true;
    return 1;
}

static __always_inline void dhcp4_note(struct dhcp4_walk *walk, __u8 code, __u32 value, __u32 len) {
    struct __sk_buff *skb = walk->skb;
    if (code == DHCP4_TYPE)
        walk->bad = len != 1 || bpf_skb_load_bytes(skb, value, &walk->type, 1);
    else if (code == DHCP4_REQUESTED)
        walk->bad = len != 4 || bpf_skb_load_bytes(skb, value, &walk->requested, 4);
    else if (code == DHCP4_SERVER)
        walk->bad = len != 4 || bpf_skb_load_bytes(skb, value, &walk->server, 4);
    else if (code == DHCP4_CLIENT_ID) {
        walk->bad = len < 2;
        walk->client_at = value - 2;
        walk->client_len = len + 2;
    }
}

static long dhcp4_option(__u32 index, struct dhcp4_walk *walk) {
    __u8 code, len;
    if (walk->at >= walk->end || bpf_skb_load_bytes(walk->skb, walk->at, &code, 1))
        return dhcp4_wrong(walk); /* no end */
    walk->at++;
    if (code == DHCP4_PAD)
        return 0;
    if (code == DHCP4_END) {
        walk->ended = true;
        return 1;
    }
    if (walk->at >= walk->end || bpf_skb_load_bytes(walk->skb, walk->at, &len, 1))
        return dhcp4_wrong(walk);
    __u32 value = walk->at + 1;
    walk->at = value + len;
    if (walk->at > walk->end)
        return dhcp4_wrong(walk);
    dhcp4_note(walk, code, value, len);
    return walk->bad ? 1 : 0;
}

/* Reads the request's fixed part and its options. Returns 0 or a drop reason. */
static __always_inline int dhcp4_read(struct reply *reply, struct iphdr *ip, struct dhcp4 *asked,
                                      struct dhcp4_walk *walk) {
    struct __sk_buff *skb = reply->skb;
    const __be32 mine = ach_words(reply->port->ip)[3];
    struct udphdr udp;
    __be32 cookie;
    if (bpf_skb_load_bytes(skb, ETH_LEN, ip, sizeof(*ip)) ||
        bpf_skb_load_bytes(skb, ETH_LEN + IP4_LEN, &udp, sizeof(udp)))
        return -ACH_DROP_TRUNCATED;
    if (ip->saddr && ip->saddr != mine)
        return -ACH_DROP_SPOOFED_IP;
    walk->end = ETH_LEN + IP4_LEN + bpf_ntohs(udp.len);
    if (walk->end > skb->len || bpf_ntohs(udp.len) + IP4_LEN > bpf_ntohs(ip->tot_len))
        return -ACH_DROP_TRUNCATED;
    walk->at = DHCP4_AT + sizeof(*asked) + sizeof(((struct dhcp4_frame *)0)->names);
    if (walk->at + 4 > walk->end || bpf_skb_load_bytes(skb, DHCP4_AT, asked, sizeof(*asked)) ||
        bpf_skb_load_bytes(skb, walk->at, &cookie, 4) || cookie != bpf_htonl(DHCP4_COOKIE))
        return -ACH_DROP_BAD_DHCP;
    walk->at += 4;
    if (asked->op != DHCP4_REQUEST || asked->htype != 1 || asked->hlen != 6 || asked->giaddr)
        return -ACH_DROP_BAD_DHCP;
    for (int i = 0; i < 6; i++)
        if (asked->chaddr[i] != reply->port->mac[i])
            return -ACH_DROP_SPOOFED_MAC;
    bpf_loop(DHCP4_OPTIONS, dhcp4_option, walk, 0);
    return walk->bad || !walk->ended ? -ACH_DROP_BAD_DHCP : 0;
}

/* The type of the reply: a verdict where there is none, else the negative of a drop reason. 0 is
 * for a message that needs no answer. */
static __always_inline int dhcp4_decide(const struct reply *reply, const struct dhcp4 *asked,
                                        const struct dhcp4_walk *walk) {
    const __be32 mine = ach_words(reply->port->ip)[3];
    const __be32 server = ach_words(reply->port->router)[3];
    switch (walk->type) {
    case DHCP4_DISCOVER:
        return DHCP4_OFFER;
    case DHCP4_INFORM:
        return DHCP4_ACK;
    case DHCP4_DECLINE:
    case DHCP4_RELEASE:
        return 0;
    case DHCP4_ASK:
        if (walk->server && walk->server != server)
            return 0; /* another's offer was taken */
        if (!walk->requested && !asked->ciaddr)
            return -ACH_DROP_BAD_DHCP;
        return (walk->requested ? walk->requested : asked->ciaddr) == mine ? DHCP4_ACK : DHCP4_NAK;
    default:
        return -ACH_DROP_BAD_DHCP;
    }
}

/* Where the guest listens: it may have no address yet, and may ask for a broadcast. */
static __always_inline __be32 dhcp4_target(const struct dhcp4 *asked, __be32 mine, int type) {
    if (type == DHCP4_NAK)
        return ~0u;
    if (asked->ciaddr)
        return asked->ciaddr;
    return asked->flags & bpf_htons(DHCP4_BROADCAST) ? ~0u : mine;
}

static __always_inline void dhcp4_append_frame(struct reply *reply, const struct dhcp4 *asked,
                                               int type, bool inform) {
    const __be32 mine = ach_words(reply->port->ip)[3];
    const __be32 server = ach_words(reply->port->router)[3];
    struct dhcp4_frame *frame = (void *)reply->scratch->words;
    __builtin_memset(frame, 0, sizeof(*frame));
    write_ethernet(frame, reply->port->mac, ACH_ETH_IPV4);
    frame->ip.version = 4;
    frame->ip.ihl = 5;
    frame->ip.ttl = 64;
    frame->ip.protocol = IPPROTO_UDP;
    frame->ip.saddr = server;
    frame->ip.daddr = dhcp4_target(asked, mine, type);
    frame->udp.source = bpf_htons(DHCP4_SERVER_PORT);
    frame->udp.dest = bpf_htons(DHCP4_CLIENT);
    frame->dhcp = *asked;
    frame->dhcp.op = DHCP4_REPLY;
    frame->dhcp.hops = 0;
    frame->dhcp.secs = 0;
    frame->dhcp.ciaddr = type == DHCP4_NAK ? 0 : asked->ciaddr;
    frame->dhcp.yiaddr = type == DHCP4_NAK || inform ? 0 : mine;
    frame->dhcp.siaddr = 0;
    frame->cookie = bpf_htonl(DHCP4_COOKIE);
    append(reply, frame, sizeof(*frame));
}

/* Lengths and checksums, once the end is known. */
static __always_inline void dhcp4_finish(struct reply *reply) {
    __u32 end = reply->at;
    struct iphdr ip;
    if (bpf_skb_load_bytes(reply->skb, ETH_LEN, &ip, sizeof(ip)))
        reply->failed = true;
    ip.tot_len = bpf_htons(end - ETH_LEN);
    ip.check = ach_ipv4_checksum(&ip);
    __be16 len = bpf_htons(end - ETH_LEN - IP4_LEN);
    reply->at = ETH_LEN;
    append(reply, &ip, sizeof(ip));
    reply->at = ETH_LEN + IP4_LEN + 4;
    append(reply, &len, sizeof(len));
    reply->at = end;
    struct pseudo4 pseudo = {ip.saddr, ip.daddr, bpf_htons(IPPROTO_UDP), len};
    __s64 seed = bpf_csum_diff(NULL, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
    __u16 check = reply_checksum(reply, ETH_LEN + IP4_LEN, seed);
    reply->at = ETH_LEN + IP4_LEN + 6;
    append(reply, &check, sizeof(check));
    reply->at = end;
}

static __always_inline int dhcp4_answer(struct reply *reply) {
    struct iphdr ip;
    struct dhcp4 asked;
    struct dhcp4_walk walk = {.skb = reply->skb};
    int error = dhcp4_read(reply, &ip, &asked, &walk);
    if (error)
        return error;
    int type = dhcp4_decide(reply, &asked, &walk);
    if (type <= 0)
        return type ? type : ACH_CONSUMED;
    bool inform = walk.type == DHCP4_INFORM;
    __u8 told[3] = {DHCP4_TYPE, 1, type}, end = DHCP4_END;
    keep_client(reply, walk.client_at, walk.client_len);
    reply_begin(reply);
    dhcp4_append_frame(reply, &asked, type, inform);
    append(reply, told, sizeof(told));
    append(reply, reply->lease->dhcp4, DHCP4_TIMES);
    if (type != DHCP4_NAK) {
        if (!inform)
            append(reply, reply->lease->dhcp4 + DHCP4_TIMES, DHCP4_REST - DHCP4_TIMES);
        append_prepared(reply, reply->lease->dhcp4, DHCP4_REST, reply->lease->dhcp4_len);
    }
    append_client(reply, walk.client_len); /* RFC 6842 */
    append(reply, &end, 1);
    dhcp4_finish(reply);
    return reply_send(reply);
}

#endif
