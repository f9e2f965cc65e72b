/* DHCPv6 (RFC 8415): the vNIC's one address for the first IA_NA that asks, from its own host; other
 * IAs are told that there is nothing for them. Nothing is remembered, as in dhcp4.h. */
#ifndef VSWITCH_DHCP6_H
#define VSWITCH_DHCP6_H

#include "reply.h"

#define DHCP6_AT       (ETH_LEN + IP6_LEN + UDP_LEN)
#define DHCP6_CLIENT   546              /* port */
#define DHCP6_WALKED   64               /* options, those in an IA_NA included */
#define DHCP6_DUID     10               /* of the server, by link-layer address */
#define DHCP6_SERVER   (4 + DHCP6_DUID) /* its option, the first that the agent prepared */
#define DHCP6_DUID_MAX 130

enum dhcp6_type {
    DHCP6_SOLICIT = 1,
    DHCP6_ADVERTISE = 2,
    DHCP6_REQUEST = 3,
    DHCP6_CONFIRM = 4,
    DHCP6_RENEW = 5,
    DHCP6_REBIND = 6,
    DHCP6_REPLY = 7,
    DHCP6_RELEASE = 8,
    DHCP6_DECLINE = 9,
    DHCP6_INFORMATION = 11,
};

enum dhcp6_option {
    DHCP6_CLIENT_ID = 1,
    DHCP6_SERVER_ID = 2,
    DHCP6_IA_NA = 3,
    DHCP6_IA_ADDR = 5,
    DHCP6_STATUS = 13,
    DHCP6_RAPID = 14,
    DHCP6_IA_PD = 25,
};

#define DHCP6_SUCCESS     0
#define DHCP6_NO_ADDRESS  2
#define DHCP6_NO_BINDING  3
#define DHCP6_NOT_ON_LINK 4
#define DHCP6_NO_PREFIX   6

struct dhcp6_head {
    __be16 code, len;
};

struct dhcp6_ia {
    struct dhcp6_head head;
    __be32 id, t1, t2;
    struct dhcp6_head address_head;
    struct in6_addr address;
    __be32 preferred, valid;
} __attribute__((packed));

struct dhcp6_empty_ia {
    struct dhcp6_head head;
    __be32 id, t1, t2;
    struct dhcp6_head status_head;
    __be16 status;
} __attribute__((packed));

struct dhcp6_walk {
    struct __sk_buff *skb;
    const __u8 *mine; /* address */
    __u32 at, end;
    __u32 inside;                /* the end of the IA_NA whose options are read, 0 if none is */
    __u32 client_at, client_len; /* of the whole option */
    __be32 ia;
    struct scratch *scratch; /* IAs that get nothing are noted there */
    __u8 server[DHCP6_DUID];
    __u8 addresses; /* as many were named, not counting beyond 255 */
    bool has_server, other_server, has_ia, foreign, rapid;
    __u32 bad; /* as in dhcp4_walk */
};

static __always_inline void dhcp6_note_server(struct dhcp6_walk *walk, __u32 value, __u32 len) {
    walk->has_server = true;
    walk->other_server =
        len != DHCP6_DUID || bpf_skb_load_bytes(walk->skb, value, walk->server, DHCP6_DUID);
}

static __always_inline void dhcp6_note_address(struct dhcp6_walk *walk, __u32 value, __u32 len) {
    struct in6_addr address;
    if (len < 24 || bpf_skb_load_bytes(walk->skb, value, &address, sizeof(address))) {
        walk->bad = true;
        return;
    }
    walk->addresses |= 1;
    walk->foreign |= !same_ip6(&address, walk->mine);
}

static __always_inline void dhcp6_note_other(struct dhcp6_walk *walk, __u32 code, __u32 value,
                                             __u32 len) {
    __u32 place = walk->scratch->others_seen;
    if (len < 12)
        walk->bad = true;
    if (len < 12 || place >= DHCP6_OTHERS)
        return;
    struct dhcp6_other *other = &walk->scratch->others[place];
    other->code = code;
    walk->bad |= !!bpf_skb_load_bytes(walk->skb, value, &other->id, sizeof(other->id));
    walk->scratch->others_seen = place + 1;
}

static long dhcp6_option(__u32 index, struct dhcp6_walk *walk) {
    struct dhcp6_head head;
    if (walk->at == walk->end)
        return 1;
    if (walk->inside && walk->at >= walk->inside)
        walk->inside = 0;
    __u32 value = walk->at + sizeof(head), end = walk->inside ? walk->inside : walk->end;
    if (value > end || bpf_skb_load_bytes(walk->skb, walk->at, &head, sizeof(head)))
        goto bad;
    __u32 len = bpf_ntohs(head.len), code = bpf_ntohs(head.code);
    walk->at = value + len;
    if (walk->at > end)
        goto bad;
    if (code == DHCP6_CLIENT_ID) {
        walk->bad |= !len || len > DHCP6_DUID_MAX;
        walk->client_at = value - sizeof(head);
        walk->client_len = len + sizeof(head);
    } else if (code == DHCP6_SERVER_ID) {
        dhcp6_note_server(walk, value, len);
    } else if (code == DHCP6_RAPID) {
        walk->rapid = true;
    } else if (code == DHCP6_IA_ADDR && walk->inside) {
        dhcp6_note_address(walk, value, len);
    } else if (code == DHCP6_IA_NA && !walk->inside && !walk->has_ia) {
        walk->bad |= len < 12 || bpf_skb_load_bytes(walk->skb, value, &walk->ia, 4);
        walk->has_ia = true;
        walk->inside = walk->at; /* its own options come next */
        walk->at = value + 12;
    } else if ((code == DHCP6_IA_NA || code == DHCP6_IA_PD) && !walk->inside) {
        dhcp6_note_other(walk, code, value, len);
    }
    return walk->bad ? 1 : 0;
bad:
    walk->bad = true;
    return 1;
}

/* Reads the request. Returns its type or the negative of a drop reason. */
static __always_inline int dhcp6_read(struct reply *reply, struct ipv6hdr *ip, __u8 *head,
                                      struct dhcp6_walk *walk) {
    struct __sk_buff *skb = reply->skb;
    struct udphdr udp;
    if (bpf_skb_load_bytes(skb, ETH_LEN, ip, sizeof(*ip)) ||
        bpf_skb_load_bytes(skb, ETH_LEN + IP6_LEN, &udp, sizeof(udp)))
        return -ACH_DROP_TRUNCATED;
    if (!is_link_local(&ip->saddr) && !same_ip6(&ip->saddr, reply->port->ip6))
        return -ACH_DROP_SPOOFED_IP;
    __u32 len = bpf_ntohs(udp.len);
    walk->at = DHCP6_AT + 4;
    walk->end = ETH_LEN + IP6_LEN + len;
    if (walk->end > skb->len || len > bpf_ntohs(ip->payload_len))
        return -ACH_DROP_TRUNCATED;
    if (len < UDP_LEN + 4 || bpf_skb_load_bytes(skb, DHCP6_AT, head, 4))
        return -ACH_DROP_BAD_DHCP;
    bpf_loop(DHCP6_WALKED, dhcp6_option, walk, 0);
    if (walk->bad || walk->at != walk->end)
        return -ACH_DROP_BAD_DHCP;
    return head[0];
}

/* Whether the named server is this one. */
static __always_inline bool dhcp6_is_ours(const struct dhcp6_walk *walk,
                                          const struct ach_lease *lease) {
    if (walk->other_server)
        return false;
    __u8 differ = 0;
    for (int i = 0; i < DHCP6_DUID; i++)
        differ |= walk->server[i] ^ lease->dhcp6[4 + i];
    return !differ;
}

/* The type of the reply; 0: none is due; else the negative of a drop reason (RFC 8415, 16). */
static __always_inline int dhcp6_decide(int type, const struct dhcp6_walk *walk,
                                        const struct ach_lease *lease) {
    bool ours = walk->has_server && dhcp6_is_ours(walk, lease);
    switch (type) {
    case DHCP6_SOLICIT:
        if (walk->has_server || !walk->client_len)
            return -ACH_DROP_BAD_DHCP;
        return walk->rapid ? DHCP6_REPLY : DHCP6_ADVERTISE;
    case DHCP6_CONFIRM:
        if (!walk->addresses)
            return -ACH_DROP_BAD_DHCP;
    case DHCP6_REBIND: /* fall through */
        return walk->has_server || !walk->client_len ? -ACH_DROP_BAD_DHCP : DHCP6_REPLY;
    case DHCP6_REQUEST:
    case DHCP6_RENEW:
    case DHCP6_RELEASE:
    case DHCP6_DECLINE:
        if (!walk->has_server || !walk->client_len)
            return -ACH_DROP_BAD_DHCP;
        return ours ? DHCP6_REPLY : 0;
    case DHCP6_INFORMATION:
        if (walk->has_ia || walk->scratch->others_seen)
            return -ACH_DROP_BAD_DHCP;
        return walk->has_server && !ours ? 0 : DHCP6_REPLY;
    default:
        return -ACH_DROP_BAD_DHCP;
    }
}

static __always_inline void dhcp6_append_ia(struct reply *reply, __be32 id) {
    __u32 lease_s = reply->lease->lease_s;
    struct dhcp6_ia ia = {
        .head = {bpf_htons(DHCP6_IA_NA), bpf_htons(sizeof(ia) - sizeof(ia.head))},
        .id = id,
        .t1 = bpf_htonl(lease_s / 2),
        .t2 = bpf_htonl(lease_s / 8 * 7),
        .address_head = {bpf_htons(DHCP6_IA_ADDR), bpf_htons(24)},
        .preferred = bpf_htonl(lease_s),
        .valid = bpf_htonl(lease_s),
    };
    __builtin_memcpy(&ia.address, reply->port->ip6, 16);
    append(reply, &ia, sizeof(ia));
}

/* What a server says that has no address, or no prefix, for an IA (RFC 8415, 18.3). */
static __always_inline __u16 dhcp6_refusal(int asked, __u32 code) {
    if (asked == DHCP6_RENEW || asked == DHCP6_REBIND)
        return DHCP6_NO_BINDING;
    return code == DHCP6_IA_PD ? DHCP6_NO_PREFIX : DHCP6_NO_ADDRESS;
}

static __always_inline void dhcp6_append_others(struct reply *reply, int asked,
                                                const struct dhcp6_walk *walk) {
    for (__u32 i = 0; i < DHCP6_OTHERS; i++) {
        if (i >= walk->scratch->others_seen)
            break;
        struct dhcp6_empty_ia ia = {
            .head = {bpf_htons(walk->scratch->others[i].code),
                     bpf_htons(sizeof(ia) - sizeof(ia.head))},
            .id = walk->scratch->others[i].id,
            .status_head = {bpf_htons(DHCP6_STATUS), bpf_htons(2)},
            .status = bpf_htons(dhcp6_refusal(asked, walk->scratch->others[i].code)),
        };
        append(reply, &ia, sizeof(ia));
    }
}

static __always_inline void dhcp6_append_status(struct reply *reply, __u16 status) {
    __be16 option[3] = {bpf_htons(DHCP6_STATUS), bpf_htons(2), bpf_htons(status)};
    append(reply, option, sizeof(option));
}

static __always_inline void dhcp6_append_rapid(struct reply *reply) {
    struct dhcp6_head rapid = {bpf_htons(DHCP6_RAPID), 0};
    append(reply, &rapid, sizeof(rapid));
}

/* What the request asked about, behind who answers. */
static __always_inline void dhcp6_append_answer(struct reply *reply, int asked,
                                                const struct dhcp6_walk *walk) {
    if (asked == DHCP6_CONFIRM)
        return dhcp6_append_status(reply, walk->foreign ? DHCP6_NOT_ON_LINK : DHCP6_SUCCESS);
    if (asked == DHCP6_RELEASE || asked == DHCP6_DECLINE)
        return dhcp6_append_status(reply, DHCP6_SUCCESS);
    append_prepared(reply, reply->lease->dhcp6, DHCP6_SERVER, reply->lease->dhcp6_len);
    if (walk->has_ia)
        dhcp6_append_ia(reply, walk->ia);
    dhcp6_append_others(reply, asked, walk);
    if (asked == DHCP6_SOLICIT && walk->rapid)
        dhcp6_append_rapid(reply);
}

static __always_inline int dhcp6_answer(struct reply *reply) {
    struct ipv6hdr ip;
    __u8 head[4]; /* type, transaction */
    struct dhcp6_walk walk = {
        .skb = reply->skb, .mine = reply->port->ip6, .scratch = reply->scratch};
    reply->scratch->others_seen = 0;
    int asked = dhcp6_read(reply, &ip, head, &walk);
    if (asked < 0)
        return asked;
    int type = dhcp6_decide(asked, &walk, reply->lease);
    if (type <= 0)
        return type ? type : ACH_CONSUMED;
    struct udphdr udp = {.source = bpf_htons(DHCP6_SERVER_PORT), .dest = bpf_htons(DHCP6_CLIENT)};
    head[0] = type;
    keep_client(reply, walk.client_at, walk.client_len);
    reply_begin(reply);
    append_ipv6(reply, &ip.saddr, IPPROTO_UDP);
    append(reply, &udp, sizeof(udp));
    append(reply, head, sizeof(head));
    append(reply, reply->lease->dhcp6, DHCP6_SERVER);
    dhcp6_append_answer(reply, asked, &walk);
    append_client(reply, walk.client_len);
    finish_ipv6(reply, &ip.saddr, IPPROTO_UDP, ETH_LEN + IP6_LEN + 6);
    return reply_send(reply);
}

#endif
