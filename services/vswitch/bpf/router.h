/* The distributed router: every host is the router of its guests' subnets. */
#ifndef VSWITCH_ROUTER_H
#define VSWITCH_ROUTER_H

#include "hop.h"

static __always_inline const __u8 *own_address(const struct ach_packet *packet,
                                               const struct ach_port *port) {
    return packet->family == 6 ? port->ip6 : port->ip;
}

/* Whether the receiver is in the sender's subnet, and no router between them. */
static __always_inline bool is_on_link(const struct ach_packet *packet,
                                       const struct ach_port *port) {
    if (packet->family == 6)
        return ach_in_prefix(packet->to.ip, port->ip6, port->prefix_len6);
    __be32 differ = ach_words(packet->to.ip)[3] ^ ach_words(port->ip)[3];
    return !(differ & ach_prefix_word(port->prefix_len, 3));
}

static __always_inline bool is_for_router(const struct ach_packet *packet,
                                          const struct ach_port *port) {
    return ach_same_ip(packet->to.ip, packet->family == 6 ? port->router6 : port->router);
}

/* One hop less in the IP header behind the frame's Ethernet header (RFC 1624 for the checksum). */
static __always_inline int count_hop(struct __sk_buff *skb, const struct ach_packet *packet) {
    struct iphdr *ip = (void *)(long)skb->data + sizeof(struct ethhdr);
    if ((void *)(ip + 1) > (void *)(long)skb->data_end)
        return -ACH_DROP_TRUNCATED;
    if (packet->family == 6) {
        ((struct ipv6hdr *)ip)->hop_limit--;
        return 0;
    }
    __u32 sum = ip->check + (__u32)bpf_htons(0x0100);
    ip->check = sum + (sum >= 0xffff);
    ip->ttl--;
    return 0;
}

/* The largest IP packet that reaches the next hop. */
static __always_inline __u32 path_mtu(const struct ach_port *port, const struct next_hop *next,
                                      const struct ach_vswitch_config *config) {
    __u32 mtu = port->mtu;
    if (next->port)
        return next->port->mtu < mtu ? next->port->mtu : mtu;
    __u32 carried = config->underlay_mtu - ACH_ENCAP_LEN;
    if (carried < mtu)
        mtu = carried;
    return next->route && next->route->mtu < mtu ? next->route->mtu : mtu;
}

/* The size of the packet, or of each of its segments. */
static __always_inline __u32 ip_size(const struct __sk_buff *skb, const struct ach_packet *packet) {
    return skb->gso_size ? packet->headers + skb->gso_size : skb->len - sizeof(struct ethhdr);
}

#endif
