/* Reading headers with a cursor: each step checks bounds, moves on, and returns what comes next or
 * the negative of a drop reason. */
#ifndef ACH_PARSE_H
#define ACH_PARSE_H

#include "ach_addr.h"

#define ACH_ETH_IPV4           0x0800
#define ACH_ETH_ARP            0x0806
#define ACH_ETH_IPV6           0x86dd
#define ACH_PROTO_ICMP6        58
#define ACH_MF                 0x2000 /* of iphdr.frag_off: more fragments follow */
#define ACH_OFFSET             0x1fff
#define ACH_TCP_FIN            0x01
#define ACH_TCP_SYN            0x02
#define ACH_TCP_RST            0x04
#define ACH_TCP_ACK            0x10
#define ACH_ICMP_ECHO          8
#define ACH_ICMP_ECHO_REPLY    0
#define ACH_ICMP_UNREACHABLE   3
#define ACH_ICMP_SOURCE_QUENCH 4
#define ACH_ICMP_REDIRECT      5
#define ACH_ICMP_TIME_EXCEEDED 11
#define ACH_ICMP_BAD_PARAMETER 12
#define ACH_ICMP_PAIRED        13 /* timestamp, information, mask: each with its reply, up to */
#define ACH_ICMP_PAIRED_END    18
#define ACH_ICMP_PROBE_REPLY   43 /* extended echo (RFC 8335) */
#define ACH_ICMP6_PROBE_REPLY  161

/* `left` counts from `pos` to the end of what the innermost length field claims; `end` is where
 * the linear part of the frame ends. */
struct ach_cursor {
    void *pos;
    void *end;
    __u32 left;
};

/* A guest's packet. `from` and `to` are ready to be used as map keys. */
struct ach_packet {
    struct ach_vni_ip from;
    struct ach_vni_ip to;
    __be16 sport; /* ICMP echo: its identifier, in both; other ICMP: see ach_icmp_ports; 0 where
                     there are no ports */
    __be16 dport;
    __u16 headers; /* bytes of IP and transport headers: what each GSO segment repeats */
    __u8 proto;    /* of the transport, behind all extension headers */
    __u8 tos;      /* or traffic class */
    __u8 tcp_flags;
    __u8 icmp_type; /* of ICMP and ICMPv6, else 0 */
    __u8 icmp_code;
    __u8 family;  /* 4 or 6 */
    __u8 ttl;     /* or hop limit */
    __u8 error;   /* an ICMP error; once its quote was read: who the packet belongs to */
    __u16 offset; /* in its datagram, in 8 bytes; 0 for the first fragment and for all others */
    __u8 more;    /* fragments follow */
    __u8 reserved;
    __u32 fragment_id; /* as the header has it; IPv4: 16 bits */
};

/* A cursor at the start of the frame, with its first `want` bytes made linear. */
static __always_inline struct ach_cursor ach_cursor(struct __sk_buff *skb, __u32 want) {
    if (want > skb->len)
        want = skb->len;
    if (skb->data_end - skb->data < want)
        bpf_skb_pull_data(skb, want);
    struct ach_cursor at = {(void *)(long)skb->data, (void *)(long)skb->data_end, skb->len};
    return at;
}

/* The next `size` bytes, or NULL where the frame or the enclosing header ends before. */
static __always_inline void *ach_take(struct ach_cursor *at, __u32 size) {
    void *header = at->pos;
    if (size > at->left || header + size > at->end)
        return NULL;
    at->pos += size;
    at->left -= size;
    return header;
}

/* An enclosing header says that `left` bytes follow. What the frame has beyond them is padding. */
static __always_inline int ach_limit(struct ach_cursor *at, __s32 left) {
    if (left < 0 || (__u32)left > at->left)
        return -ACH_DROP_TRUNCATED;
    at->left = left;
    return 0;
}

/* Returns the EtherType. */
static __always_inline int ach_parse_eth(struct ach_cursor *at, struct ethhdr **eth) {
    *eth = ach_take(at, sizeof(**eth));
    return *eth ? bpf_ntohs((*eth)->h_proto) : -ACH_DROP_TRUNCATED;
}

/* Returns the protocol. The total length is the caller's to check by ach_limit_ipv4. */
static __always_inline int ach_parse_ipv4(struct ach_cursor *at, struct iphdr **ip) {
    *ip = ach_take(at, sizeof(**ip));
    if (!*ip)
        return -ACH_DROP_TRUNCATED;
    if ((*ip)->version != 4 || (*ip)->ihl < 5)
        return -ACH_DROP_BAD_IP_HEADER;
    __u32 options = ((*ip)->ihl * 4 - sizeof(**ip)) & 0x3c; /* the mask is for the verifier */
    if (!ach_take(at, options))
        return -ACH_DROP_TRUNCATED;
    return (*ip)->protocol;
}

static __always_inline int ach_limit_ipv4(struct ach_cursor *at, const struct iphdr *ip) {
    return ach_limit(at, (__s32)bpf_ntohs(ip->tot_len) - ip->ihl * 4);
}

/* Returns the first next header. */
static __always_inline int ach_parse_ipv6(struct ach_cursor *at, struct ipv6hdr **ip) {
    *ip = ach_take(at, sizeof(**ip));
    if (!*ip)
        return -ACH_DROP_TRUNCATED;
    if ((*ip)->version != 6)
        return -ACH_DROP_BAD_IP_HEADER;
    int error = ach_limit(at, bpf_ntohs((*ip)->payload_len));
    return error ? error : (*ip)->nexthdr;
}

static __always_inline int ach_parse_tcp(struct ach_cursor *at, struct ach_packet *packet) {
    struct tcphdr *tcp = ach_take(at, sizeof(*tcp));
    if (!tcp || tcp->doff < 5 || tcp->doff * 4 - sizeof(*tcp) > at->left)
        return -ACH_DROP_TRUNCATED;
    packet->sport = tcp->source;
    packet->dport = tcp->dest;
    packet->tcp_flags = ((__u8 *)tcp)[13];
    packet->headers += tcp->doff * 4;
    return 0;
}

static __always_inline int ach_parse_udp(struct ach_cursor *at, struct ach_packet *packet) {
    struct udphdr *udp = ach_take(at, sizeof(*udp));
    if (!udp)
        return -ACH_DROP_TRUNCATED;
    packet->sport = udp->source;
    packet->dport = udp->dest;
    packet->headers += sizeof(*udp);
    return 0;
}

/* Of IPv4: a message that quotes the packet that caused it. */
static __always_inline bool ach_is_icmp_error(__u8 type) {
    return (type >= ACH_ICMP_UNREACHABLE && type <= ACH_ICMP_REDIRECT) ||
           type == ACH_ICMP_TIME_EXCEEDED || type == ACH_ICMP_BAD_PARAMETER;
}

/* The type that one of ICMP or ICMPv6, other than echo, replies to, or itself. */
static __always_inline __u8 ach_icmp_request(__u8 type) {
    bool paired = type >= ACH_ICMP_PAIRED && type <= ACH_ICMP_PAIRED_END && !(type & 1);
    return paired || type == ACH_ICMP_PROBE_REPLY || type == ACH_ICMP6_PROBE_REPLY ? type - 1
                                                                                   : type;
}

/* What stands for the ports of ICMP other than echo: its type and code, and on the other side all
 * their bits turned, so that no identifier of an echo looks like it. A reply has those of its
 * request, of code 0, the other way round. */
static __always_inline void ach_icmp_ports(struct ach_packet *packet) {
    __u8 request = ach_icmp_request(packet->icmp_type);
    bool reply = request != packet->icmp_type;
    __be16 kind = bpf_htons(request << 8 | (reply ? 0 : packet->icmp_code));
    packet->sport = reply ? ~kind : kind;
    packet->dport = reply ? kind : ~kind;
}

static __always_inline int ach_parse_icmp(struct ach_cursor *at, struct ach_packet *packet) {
    struct icmphdr *icmp = ach_take(at, sizeof(*icmp));
    if (!icmp)
        return -ACH_DROP_TRUNCATED;
    packet->icmp_type = icmp->type;
    packet->icmp_code = icmp->code;
    packet->error = ach_is_icmp_error(icmp->type);
    packet->headers += sizeof(*icmp);
    if (icmp->type == ACH_ICMP_ECHO || icmp->type == ACH_ICMP_ECHO_REPLY) {
        packet->sport = icmp->un.echo.id;
        packet->dport = icmp->un.echo.id;
    } else {
        ach_icmp_ports(packet);
    }
    return 0;
}

static __always_inline int ach_parse_transport(struct ach_cursor *at, struct ach_packet *packet) {
    switch (packet->proto) {
    case IPPROTO_TCP:
        return ach_parse_tcp(at, packet);
    case IPPROTO_UDP:
        return ach_parse_udp(at, packet);
    case IPPROTO_ICMP:
        return ach_parse_icmp(at, packet);
    default:
        return 0;
    }
}

#endif
