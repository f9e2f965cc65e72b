/* The last step of a packet: to a guest on this host, or to another VTEP. */
#ifndef VSWITCH_DELIVER_H
#define VSWITCH_DELIVER_H

#include "maps.h"
#include "packet.h"
#include "ach_vxlan.h"

#define ACH_PACKET_HOST 0 /* of skb->pkt_type */
#define ACH_AF_INET     2

/* names.ROUTER_MAC: what every guest sends to and receives from. */
static const __u8 router_mac[6] __attribute__((aligned(2))) = {0x0e, 0xac, 0xe1, 0x00, 0x00, 0x01};

static __always_inline int to_guest(struct __sk_buff *skb, __u32 slot,
                                    const struct ach_port *port) {
    struct ach_port_counters *counted = counters_of(slot);
    struct ethhdr *eth = (void *)(long)skb->data;
    if (!counted || (void *)(eth + 1) > (void *)(long)skb->data_end)
        return -ACH_DROP_TRUNCATED;
    counted->rx_packets++;
    counted->rx_bytes += skb->len;
    ach_copy_mac(eth->h_dest, port->mac);
    ach_copy_mac(eth->h_source, router_mac);
    if (!(port->flags & ACH_PORT_PEER))
        return bpf_redirect(port->ifindex, 0);
    /* The peer's stack takes the frame as it is; sent to the router MAC, it looked like another's.
     */
    if (skb->pkt_type != ACH_PACKET_HOST)
        bpf_skb_change_type(skb, ACH_PACKET_HOST);
    return bpf_redirect_peer(port->ifindex, 0);
}

/* A VTEP of the underlay's own network is asked for by ARP; to others there is a route. */
static __always_inline bool is_neighbour(__be32 vtep, const struct ach_vswitch_config *config) {
    __u32 length = config->underlay_prefix_len;
    return length && !((vtep ^ config->vtep) & ach_prefix_word(length, 3));
}

static __always_inline int to_vtep(struct __sk_buff *skb, const struct ach_tunnel *tunnel,
                                   const struct ach_vswitch_config *config) {
    int error = ach_encap(skb, tunnel);
    if (error)
        return error;
    if (!is_neighbour(tunnel->to, config))
        return bpf_redirect_neigh(config->underlay_ifindex, NULL, 0, 0);
    struct bpf_redir_neigh hop = {.nh_family = ACH_AF_INET, .ipv4_nh = tunnel->to};
    return bpf_redirect_neigh(config->underlay_ifindex, &hop, sizeof(hop), 0);
}

#endif
