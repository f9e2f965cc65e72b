/* ARP (RFC 826): the guest's side of it is answered here and floods nowhere. */
#ifndef VSWITCH_ARP_H
#define VSWITCH_ARP_H

#include "deliver.h"

#define ARP_ETHERNET      1
#define ARP_REQUEST       1
#define ARP_REPLY         2
#define LINK_LOCAL_ROUTER 0xa9fe0101 /* 169.254.1.1, the router of /31 and /32 subnets */

struct arp_ipv4 {
    __be16 hardware;
    __be16 protocol;
    __u8 hardware_len;
    __u8 protocol_len;
    __be16 operation;
    __u8 sender_mac[6];
    __be32 sender;
    __u8 target_mac[6];
    __be32 target;
} __attribute__((packed));

static __always_inline int arp_check(const struct arp_ipv4 *arp, const struct ach_port *port) {
    if (arp->hardware != bpf_htons(ARP_ETHERNET) || arp->protocol != bpf_htons(ACH_ETH_IPV4) ||
        arp->hardware_len != 6 || arp->protocol_len != 4)
        return -ACH_DROP_BAD_ARP;
    if (arp->operation != bpf_htons(ARP_REQUEST) && arp->operation != bpf_htons(ARP_REPLY))
        return -ACH_DROP_BAD_ARP;
    if (!ach_same_mac(arp->sender_mac, port->mac))
        return -ACH_DROP_SPOOFED_MAC;
    /* 0.0.0.0 asks whether an address is taken (RFC 5227). */
    if (arp->sender && arp->sender != ach_words(port->ip)[3])
        return -ACH_DROP_SPOOFED_IP;
    return 0;
}

/* The router MAC stands for every address that the guest may reach without a router. */
static __always_inline bool arp_is_ours(__be32 target, const struct ach_port *port) {
    __u8 ip[16];
    ach_map_ipv4(ip, target);
    return target == bpf_htonl(LINK_LOCAL_ROUTER) || !ach_compare_ip(ip, port->router) ||
           ach_in_prefix(ip, port->ip, port->prefix_len);
}

static __always_inline int answer_arp(struct __sk_buff *skb, struct ach_cursor *at,
                                      struct ethhdr *eth, const struct ach_port *port) {
    struct arp_ipv4 *arp = ach_take(at, sizeof(*arp));
    if (!arp)
        return -ACH_DROP_TRUNCATED;
    int error = arp_check(arp, port);
    if (error)
        return error;
    /* It tells or probes its own address: nobody else has it. Replies nobody asked for. */
    if (arp->target == ach_words(port->ip)[3] || arp->operation != bpf_htons(ARP_REQUEST))
        return ACH_CONSUMED;
    if (!arp_is_ours(arp->target, port))
        return -ACH_DROP_BAD_ARP;
    __be32 asked = arp->target;
    arp->operation = bpf_htons(ARP_REPLY);
    ach_copy_mac(arp->target_mac, port->mac);
    arp->target = arp->sender;
    ach_copy_mac(arp->sender_mac, router_mac);
    arp->sender = asked;
    ach_copy_mac(eth->h_dest, port->mac);
    ach_copy_mac(eth->h_source, router_mac);
    return bpf_redirect(skb->ifindex, 0);
}

#endif
