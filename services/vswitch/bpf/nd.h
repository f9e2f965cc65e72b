/* Neighbour discovery (RFC 4861) and what else IPv6 says on the link: answered here, or in order
 * and of interest to nobody, or dropped. Nothing of it leaves the host. */
#ifndef VSWITCH_ND_H
#define VSWITCH_ND_H

#include "icmp.h"
#include "reply.h"

#define MLD_QUERY           130
#define MLD_DONE            132
#define MLD2_REPORT         143
#define ND_NEIGHBOR_SOLICIT 135
#define ND_NEIGHBOR_ADVERT  136
#define ND_SOURCE_ADDRESS   1
#define ND_TARGET_ADDRESS   2
#define ND_HOP_LIMIT        255
#define ND_ROUTER           0x80000000
#define ND_SOLICITED        0x40000000
#define ND_OVERRIDE         0x20000000
#define ND_LENGTH           32 /* of an advertisement with the option that we send */

struct nd_option {
    __u8 type;
    __u8 length; /* in 8 bytes */
    __u8 mac[6];
};

/* A solicitation or advertisement. */
struct nd_message {
    struct ipv6hdr ip;
    __u8 type, code;
    __u16 check;
    __be32 flags;
    __u8 target[16];
    struct nd_option option; /* not in every one */
};

#define ND_BARE (sizeof(struct nd_message) - sizeof(struct nd_option))

/* Multicast, link-local or from nobody yet: nothing that a router forwards. */
static __always_inline bool is_link_scope(const struct ach_packet *packet) {
    return ach_is_multicast6(packet->to.ip) || ach_is_link_local6(packet->to.ip) ||
           ach_is_link_local6(packet->from.ip) || ach_is_reserved6(packet->from.ip);
}

/* Whether the router MAC stands for the target: every address that the guest reaches by itself, and
 * its routers'. */
static __always_inline bool nd_is_ours(const __u8 *target, const struct ach_port *port,
                                       bool *router) {
    *router =
        ach_same_ip(target, port->router6) || ach_same_ip(target, router_link_local.in6_u.u6_addr8);
    return *router ||
           (!ach_is_reserved6(port->ip6) && ach_in_prefix(target, port->ip6, port->prefix_len6));
}

/* ff02::1:ff00:0/104: those who may have an address that ends alike. */
static __always_inline bool nd_is_solicited_node(const struct in6_addr *to) {
    const __be32 *word = to->in6_u.u6_addr32;
    return word[0] == bpf_htonl(0xff020000) && !word[1] && word[2] == bpf_htonl(1) &&
           to->in6_u.u6_addr8[12] == 0xff;
}

/* RFC 4861, section 7.1.1. The sum is not looked at: nothing of the message is passed on. */
static __always_inline int nd_check(const struct nd_message *asked, void *end, bool nobody,
                                    const struct ach_port *port) {
    __u32 length = bpf_ntohs(asked->ip.payload_len);
    if (asked->ip.hop_limit != ND_HOP_LIMIT || asked->code ||
        length + sizeof(asked->ip) < ND_BARE || ach_is_multicast6(asked->target) ||
        (nobody && !nd_is_solicited_node(&asked->ip.daddr)))
        return -ACH_DROP_BAD_ND;
    if (length + sizeof(asked->ip) == ND_BARE)
        return 0;
    if ((void *)(asked + 1) > end)
        return -ACH_DROP_TRUNCATED;
    if (!asked->option.length)
        return -ACH_DROP_BAD_ND;
    if (asked->option.type != ND_SOURCE_ADDRESS)
        return 0;
    if (nobody)
        return -ACH_DROP_BAD_ND;
    return ach_same_mac(asked->option.mac, port->mac) ? 0 : -ACH_DROP_SPOOFED_MAC;
}

/* The solicitation becomes the advertisement: to its sender, or to all if it has no address. */
static __always_inline int nd_advertise(struct __sk_buff *skb, const struct ach_port *port,
                                        bool nobody, bool router) {
    const __u32 eth = sizeof(struct ethhdr);
    if (bpf_skb_change_tail(skb, eth + sizeof(struct nd_message), 0))
        return -ACH_DROP_TRUNCATED;
    struct nd_message *told = (void *)(long)skb->data + eth;
    if ((void *)(told + 1) > (void *)(long)skb->data_end)
        return -ACH_DROP_TRUNCATED;
    ach_word *to = (ach_word *)&told->ip.daddr;
    if (nobody) { /* ff02::1 */
        to[0] = bpf_htonl(0xff020000);
        to[1] = to[2] = 0;
        to[3] = bpf_htonl(1);
    } else {
        ach_copy_ip((__u8 *)to, (__u8 *)&told->ip.saddr);
    }
    ach_copy_ip((__u8 *)&told->ip.saddr, told->target);
    *(ach_word *)&told->ip = bpf_htonl(0x60000000);
    told->ip.payload_len = bpf_htons(ND_LENGTH);
    told->type = ND_NEIGHBOR_ADVERT;
    told->check = 0;
    told->flags = bpf_htonl(ND_OVERRIDE | (nobody ? 0 : ND_SOLICITED) | (router ? ND_ROUTER : 0));
    told->option.type = ND_TARGET_ADDRESS;
    told->option.length = 1;
    ach_copy_mac(told->option.mac, router_mac);
    __u64 sum = (__u32)bpf_csum_diff(NULL, 0, (void *)&told->ip.saddr, 32 + ND_LENGTH, 0);
    told->check = icmp_fold(sum + bpf_htonl(ND_LENGTH) + bpf_htonl(ACH_PROTO_ICMP6));
    return icmp_return(skb, port);
}

static __always_inline int nd_solicited(struct __sk_buff *skb, const struct nd_message *asked,
                                        void *end, const struct ach_port *port) {
    bool nobody = ach_is_reserved6((const __u8 *)&asked->ip.saddr), router;
    int error = nd_check(asked, end, nobody, port);
    if (error)
        return error;
    /* It asks whether others have its own address: nobody has. Of link-local ones, any is its own
     * but the router's. */
    if (ach_same_ip(asked->target, port->ip6))
        return ACH_CONSUMED;
    if (nd_is_ours(asked->target, port, &router))
        return nd_advertise(skb, port, nobody, router);
    return nobody && ach_is_link_local6(asked->target) ? ACH_CONSUMED : -ACH_DROP_BAD_ND;
}

/* What guests say to everybody whether somebody listens or not. */
static __always_inline int nd_message(struct __sk_buff *skb, const struct nd_message *message,
                                      void *end, const struct ach_port *port) {
    switch (message->type) {
    case ND_ROUTER_SOLICITATION:
        return ACH_CONSUMED;
    case ND_NEIGHBOR_SOLICIT:
        return nd_solicited(skb, message, end, port);
    case ND_NEIGHBOR_ADVERT:
        return ach_same_ip(message->target, port->ip6) || ach_is_link_local6(message->target)
                   ? ACH_CONSUMED
                   : -ACH_DROP_SPOOFED_IP;
    default: /* it plays the router */
        return -ACH_DROP_BAD_ND;
    }
}

/* A report of the groups that a guest listens to (RFC 2710, RFC 3810). */
static __always_inline bool is_mld_report(struct __sk_buff *skb) {
    const __u32 options = sizeof(struct ethhdr) + sizeof(struct ipv6hdr);
    __u8 head[9];
    return !bpf_skb_load_bytes(skb, options, head, sizeof(head)) && head[0] == ACH_PROTO_ICMP6 &&
           !head[1] && (head[8] == MLD2_REPORT || (head[8] > MLD_QUERY && head[8] <= MLD_DONE));
}

/* An IPv6 packet of the vNIC in `slot` that is neighbour discovery or goes no further than its
 * link.
 */
__noinline int link_packet(struct __sk_buff *skb, __u32 slot) {
    const struct ach_port *port = port_in(slot);
    if (bpf_skb_pull_data(skb, sizeof(struct ethhdr) + sizeof(struct nd_message)) &&
        bpf_skb_pull_data(skb, 0))
        return -ACH_DROP_TRUNCATED;
    const struct nd_message *message = (void *)(long)skb->data + sizeof(struct ethhdr);
    void *end = (void *)(long)skb->data_end;
    if (!port || (void *)(&message->ip + 1) > end)
        return -ACH_DROP_TRUNCATED;
    const __u8 *from = (const __u8 *)&message->ip.saddr, *to = (const __u8 *)&message->ip.daddr;
    if (!ach_same_ip(from, port->ip6) && !ach_is_link_local6(from) &&
        !(!(ach_words(from)[2] | ach_words(from)[3]) && ach_is_reserved6(from)))
        return -ACH_DROP_SPOOFED_IP;
    bool group = ach_is_multicast6(to);
    if (message->ip.nexthdr == IPV6_HOP_BY_HOP && group)
        return is_mld_report(skb) ? ACH_CONSUMED : -ACH_DROP_MULTICAST;
    if (message->ip.nexthdr == ACH_PROTO_ICMP6) {
        if ((void *)message + sizeof(message->ip) + 8 > end)
            return -ACH_DROP_TRUNCATED;
        if (message->type == ND_ROUTER_SOLICITATION)
            return ACH_CONSUMED; /* it may be shorter */
        if (message->type > ND_ROUTER_SOLICITATION && message->type <= ND_REDIRECT)
            return (void *)message + ND_BARE > end ? -ACH_DROP_TRUNCATED
                                                   : nd_message(skb, message, end, port);
        if (message->type == ICMP6_ECHO && ach_same_ip(to, router_link_local.in6_u.u6_addr8))
            return answer_ping(skb, slot);
    }
    return group ? -ACH_DROP_MULTICAST : -ACH_DROP_LINK_LOCAL;
}

#endif
