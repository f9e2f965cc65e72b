/* A reply to the guest, written over its request piece by piece. */
#ifndef VSWITCH_REPLY_H
#define VSWITCH_REPLY_H

#include "services.h"
#include "deliver.h"

#define REPLY_ROOM  1024 /* of a frame that is being written */
#define REPLY_WORDS (REPLY_ROOM / 4)
#define ETH_LEN     14
#define IP4_LEN     20
#define IP6_LEN     40
#define UDP_LEN     8
#define HOP_LIMIT   255

/* Have what was checked be the register that is used: the compiler likes to compute it twice. */
#define HOLD(var) asm volatile("" : "+r"(var))

#define DHCP6_OTHERS 4 /* IAs beside the first IA_NA that are answered */
/* An IA that gets nothing: an IA_NA or an IA_PD, whose fields are the same. */
struct dhcp6_other {
    __be32 id;
    __u32 code;
};

/* What does not fit the stack, or would have the verifier walk a loop for each of its values. */
struct scratch {
    __u32 words[REPLY_WORDS];
    __u8 client[256]; /* the option by which the client names itself */
    __u32 others_seen;
    struct dhcp6_other others[DHCP6_OTHERS];
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct scratch);
} reply_scratch SEC(".maps");

struct reply {
    struct __sk_buff *skb;
    struct scratch *scratch;
    const struct ach_port *port;
    const struct ach_lease *lease;
    __u32 slot;
    __u32 at; /* where the next piece goes */
    bool failed;
};

/* A UDP pseudo header, and that of ICMPv6. */
struct pseudo4 {
    __be32 from, to;
    __be16 proto, len;
};

struct pseudo6 {
    struct in6_addr from, to;
    __be32 len, proto;
};

/* names.ROUTER_LINK_LOCAL: fe80:: and the router MAC as EUI-64 (RFC 4291, appendix A). */
static const struct in6_addr router_link_local = {
    .in6_u.u6_addr8 = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x0c, 0xac, 0xe1, 0xff, 0xfe, 0, 0, 1},
};

/* Who asks; the frame's MAC was checked already. Returns 0 or a drop reason. */
static __always_inline int reply_open(struct __sk_buff *skb, struct reply *reply) {
    __u32 ifindex = skb->ifindex, zero = 0;
    __u32 *slot = bpf_map_lookup_elem(&port_by_ifindex, &ifindex);
    if (!slot)
        return -ACH_DROP_PORT_NOT_READY;
    reply->skb = skb;
    reply->slot = *slot;
    reply->port = port_in(reply->slot);
    reply->lease = bpf_map_lookup_elem(&leases, &reply->slot);
    reply->scratch = bpf_map_lookup_elem(&reply_scratch, &zero);
    reply->at = 0;
    reply->failed = false;
    if (!reply->port || !reply->lease || !reply->scratch || !reply->lease->ready)
        return -ACH_DROP_PORT_NOT_READY;
    return 0;
}

/* The next piece. `len` is 1..REPLY_ROOM as far as the verifier can tell. */
static __always_inline void append(struct reply *reply, const void *from, __u64 len) {
    if (bpf_skb_store_bytes(reply->skb, reply->at, from, len, 0))
        reply->failed = true;
    reply->at += len;
}

/* Bytes `from` to `len` of a message that the agent has prepared in `bytes[size]`. */
#define append_prepared(reply, bytes, from, prepared_len)                                          \
    do {                                                                                           \
        __u64 rest = *(volatile const __u16 *)&(prepared_len);                                     \
        rest -= (from);                                                                            \
        HOLD(rest);                                                                                \
        if (rest && rest <= sizeof(bytes) - (from))                                                \
            append(reply, (bytes) + (from), rest);                                                 \
    } while (0)

/* The option by which the client names itself, as it came. */
static __always_inline void append_client(struct reply *reply, __u64 len) {
    HOLD(len);
    if (len && len <= sizeof(reply->scratch->client))
        append(reply, reply->scratch->client, len);
}

static __always_inline void keep_client(struct reply *reply, __u32 at, __u64 len) {
    HOLD(len);
    if (len && len <= sizeof(reply->scratch->client) &&
        bpf_skb_load_bytes(reply->skb, at, reply->scratch->client, len))
        reply->failed = true;
}

/* The request gives way to a frame of REPLY_ROOM bytes. */
static __always_inline void reply_begin(struct reply *reply) {
    if (bpf_skb_change_tail(reply->skb, REPLY_ROOM, 0))
        reply->failed = true;
}

/* The sum of the reply from `at` to its end and of a pseudo header's, as it stands in a header. */
static __always_inline __u16 reply_checksum(struct reply *reply, __u32 at, __s64 seed) {
    __u64 len = reply->at - at;
    HOLD(len);
    if (len < UDP_LEN || len > REPLY_ROOM - 4)
        return 0;
    __u64 end = len >> 2; /* the last word may not be whole */
    HOLD(end);
    if (end < REPLY_WORDS)
        reply->scratch->words[end] = 0;
    if (bpf_skb_load_bytes(reply->skb, at, reply->scratch->words, len))
        return 0;
    __u64 padded = (len + 3) & ~3ull;
    HOLD(padded);
    if (padded > REPLY_ROOM)
        return 0;
    __s64 sum = bpf_csum_diff(NULL, 0, reply->scratch->words, padded, seed);
    sum = (sum & 0xffff) + ((sum >> 16) & 0xffff);
    sum = (sum & 0xffff) + (sum >> 16);
    __u16 check = ~sum;
    return check ? check : 0xffff;
}

/* Ends the reply and sends it back to the guest. */
static __always_inline int reply_send(struct reply *reply) {
    __u32 len = reply->at;
    if (reply->failed || len > REPLY_ROOM || bpf_skb_change_tail(reply->skb, len, 0))
        return -ACH_DROP_TRUNCATED;
    return bpf_redirect(reply->skb->ifindex, 0);
}

static __always_inline void write_ethernet(void *frame, const __u8 *to, __u16 type) {
    struct ethhdr *eth = frame;
    __builtin_memcpy(eth->h_dest, to, 6);
    __builtin_memcpy(eth->h_source, router_mac, 6);
    eth->h_proto = bpf_htons(type);
}

/* The headers of a reply by IPv6: from the router's link-local address, lengths not known yet. */
static __always_inline void append_ipv6(struct reply *reply, const struct in6_addr *to,
                                        __u8 proto) {
    struct {
        struct ethhdr eth;
        struct ipv6hdr ip;
    } __attribute__((packed)) head = {};
    write_ethernet(&head, reply->port->mac, SERVICES_IPV6);
    head.ip.version = 6;
    head.ip.nexthdr = proto;
    head.ip.hop_limit = HOP_LIMIT;
    head.ip.saddr = router_link_local;
    head.ip.daddr = *to;
    append(reply, &head, sizeof(head));
}

/* Fills in the length, and the checksum at `check_at`, which is 0 until now. */
static __always_inline void finish_ipv6(struct reply *reply, const struct in6_addr *to, __u8 proto,
                                        __u32 check_at) {
    __u32 end = reply->at, start = ETH_LEN + IP6_LEN;
    struct pseudo6 pseudo = {
        .from = router_link_local,
        .to = *to,
        .len = bpf_htonl(end - start),
        .proto = bpf_htonl(proto),
    };
    __be16 len = bpf_htons(end - start);
    reply->at = ETH_LEN + 4;
    append(reply, &len, sizeof(len));
    if (proto == IPPROTO_UDP) {
        reply->at = start + 4;
        append(reply, &len, sizeof(len));
    }
    reply->at = end;
    __s64 seed = bpf_csum_diff(NULL, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
    __u16 check = reply_checksum(reply, start, seed);
    reply->at = check_at;
    append(reply, &check, sizeof(check));
    reply->at = end;
}

static __always_inline bool is_link_local(const struct in6_addr *address) {
    return address->in6_u.u6_addr8[0] == 0xfe && (address->in6_u.u6_addr8[1] & 0xc0) == 0x80;
}

static __always_inline bool same_ip6(const struct in6_addr *address, const __u8 *ip) {
    return !ach_compare_ip(address->in6_u.u6_addr8, ip);
}

#endif
