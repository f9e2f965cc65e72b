/* The packet path of a host: everything between its guests and the underlay (docs/architecture.md,
 * "One packet"). Attached at the tc ingress of each guest port and of the underlay device. */
#include "ach_kernel.h"

#include "maps.h"
#include "packet.h"
#include "tcp.h"
#include "reclaim.h"
#include "session.h"
#include "hop.h"
#include "acl.h"
#include "learn.h"
#include "deliver.h"
#include "arp.h"
#include "services.h"
#include "sample.h"

#define GUEST_HEADERS    94  /* Ethernet, IPv4 with options, TCP without */
#define UNDERLAY_HEADERS 144 /* and 50 of the underlay before them */
#define TOUCH_NS         10000000

/* The vNIC whose packet is on its way out. */
struct sender {
    __u32 slot;
    const struct ach_port *port;
    struct ach_port_counters *counted;
    const struct ach_vswitch_config *config;
};

static __always_inline void count_sent(struct ach_port_counters *counted, struct __sk_buff *skb) {
    counted->tx_packets++;
    counted->tx_bytes += skb->len;
}

/* The receiver is on this host as well: its rules apply, too. */
static __always_inline int forward_here(struct __sk_buff *skb, struct flow *flow,
                                        const struct ach_packet *packet,
                                        const struct sender *sender, const struct next_hop *next) {
    struct acl_query query = {.identity = sender->port->identity};
    int error = admit(flow, packet, flow->from ^ 1, next->slot, next->port, &query);
    if (!error)
        error = flow_commit(flow, packet, skb->len);
    if (error)
        return error;
    count_sent(sender->counted, skb);
    sender->counted->local++;
    return to_guest(skb, next->slot, next->port);
}

/* To the receiver's host if the FC knows it, else by a gateway, and the agent hears of it. */
static __always_inline int forward_away(struct __sk_buff *skb, struct flow *flow,
                                        const struct ach_packet *packet,
                                        const struct sender *sender, const struct next_hop *next) {
    struct ach_fc_entry *route = next->route;
    struct ach_tunnel tunnel = {
        .from = sender->config->vtep,
        .to = route ? route->vtep : gateway_for(&packet->to),
        .vni = sender->port->vni,
        .smac = sender->port->mac,
        .dmac = route ? route->mac : router_mac,
        .identity = sender->port->identity,
        .tos = packet->tos,
    };
    if (!tunnel.to)
        return -ACH_DROP_NO_GATEWAY;
    if (!fits_underlay(skb, packet, sender->config))
        return -ACH_DROP_TOO_BIG;
    int error = flow_commit(flow, packet, skb->len);
    if (error)
        return error;
    count_sent(sender->counted, skb);
    if (route) {
        sender->counted->direct++;
        /* Not at every packet: the line is shared with other CPUs and with the agent. */
        if ((__s64)(flow->now - route->last_used_ns) > TOUCH_NS)
            route->last_used_ns = flow->now;
    } else {
        sender->counted->relayed++;
        learn_destination(&packet->to, sender->slot, flow->now, skb->len, sender->config,
                          sender->counted);
    }
    return to_vtep(skb, &tunnel, sender->config);
}

static __always_inline int guest_packet(struct __sk_buff *skb, struct ach_cursor *at,
                                        const struct sender *sender) {
    const struct ach_port *port = sender->port;
    struct ach_packet packet;
    int error = parse_packet(at, port->vni, &packet);
    if (error)
        return error;
    if (ach_compare_ip(packet.from.ip, port->ip))
        return -ACH_DROP_SPOOFED_IP;
    if (ach_is_multicast(ach_words(packet.to.ip)[3]) ||
        ach_is_broadcast(packet.to.ip, port->ip, port->prefix_len))
        return -ACH_DROP_MULTICAST;
    struct flow flow;
    struct next_hop next;
    error = flow_open(&flow, &packet, sender->config, sender->slot, 0);
    if (error)
        return error;
    hop_resolve(&flow, &packet, &next);
    struct acl_query query = {.identity = identity_of_next(&flow, &next)};
    error = admit(&flow, &packet, flow.from, sender->slot, port, &query);
    if (error == -ACH_DROP_IDENTITY_UNKNOWN) /* so that it is known when the guest tries again */
        learn_destination(&packet.to, sender->slot, flow.now, skb->len, sender->config,
                          sender->counted);
    if (error)
        return error;
    int verdict = next.port ? forward_here(skb, &flow, &packet, sender, &next)
                            : forward_away(skb, &flow, &packet, sender, &next);
    sender->counted->slow_path += flow.slow;
    return verdict;
}

/* A frame from the guest on this device. */
static __always_inline int guest_frame(struct __sk_buff *skb, __u32 *slot) {
    struct sender sender = {.config = vswitch_config()};
    __u32 ifindex = skb->ifindex;
    __u32 *bound = bpf_map_lookup_elem(&port_by_ifindex, &ifindex);
    if (!bound || !sender.config)
        return -ACH_DROP_PORT_NOT_READY;
    sender.slot = *bound;
    sender.port = port_in(sender.slot);
    sender.counted = counters_of(sender.slot);
    if (!sender.port || !sender.counted)
        return -ACH_DROP_PORT_NOT_READY;
    *slot = sender.slot;

    struct ach_cursor at = ach_cursor(skb, GUEST_HEADERS);
    struct ethhdr *eth;
    int type = ach_parse_eth(&at, &eth);
    if (type < 0)
        return type;
    if (!ach_same_mac(eth->h_source, sender.port->mac))
        return -ACH_DROP_SPOOFED_MAC;
    if (skb->vlan_present) /* the tag is not in the frame's bytes any more */
        return -ACH_DROP_UNSUPPORTED_ETHERTYPE;
    if (type == ACH_ETH_ARP)
        return answer_arp(skb, &at, eth, sender.port);
    __u32 service = asked_service(at, type, sender.port);
    if (service)
        bpf_tail_call(skb, &services, service);
    if (type != ACH_ETH_IPV4)
        return -ACH_DROP_UNSUPPORTED_ETHERTYPE;
    if (eth->h_dest[0] & 1)
        return -ACH_DROP_MULTICAST;
    return guest_packet(skb, &at, &sender);
}

/* A packet from another host for the vNIC `port`, still in its outer headers. */
static __always_inline int arrived_packet(struct __sk_buff *skb, struct ach_packet *packet,
                                          __u32 slot, const struct ach_port *port,
                                          const struct ach_vswitch_config *config, __u8 outer_tos,
                                          __u16 identity) {
    if (bpf_map_lookup_elem(&endpoints, &packet->from))
        return -ACH_DROP_SPOOFED_IP; /* what this host's own vNICs send does not come from others */
    struct flow flow;
    int error = flow_open(&flow, packet, config, slot, ACH_SESSION_ARRIVED);
    if (error)
        return error;
    struct acl_query query = {.identity = identity_of_sender(&flow, identity)};
    error = admit(&flow, packet, flow.from ^ 1, slot, port, &query);
    if (!error)
        error = flow_commit(&flow, packet, skb->len - ACH_ENCAP_LEN);
    struct ach_port_counters *counted = counters_of(slot);
    if (counted)
        counted->slow_path += flow.slow;
    if (!error)
        error = ach_decap(skb, outer_tos);
    return error ? error : to_guest(skb, slot, port);
}

/* A frame of the underlay: VXLAN for one of our guests, or not ours. */
static __always_inline int underlay_frame(struct __sk_buff *skb, __u32 *slot) {
    const struct ach_vswitch_config *config = vswitch_config();
    struct ach_cursor at = ach_cursor(skb, UNDERLAY_HEADERS);
    struct iphdr *ip;
    struct udphdr *udp;
    int port_number = config ? ach_parse_underlay(&at, config->vtep, &ip, &udp) : ACH_NOT_OURS;
    if (port_number < 0)
        return port_number;
    if (port_number != ACH_VXLAN_PORT || skb->vlan_present)
        return ACH_NOT_OURS;
    __be32 from = ip->saddr;
    if (!bpf_map_lookup_elem(&vteps, &from))
        return -ACH_DROP_UNKNOWN_VTEP;
    __u16 identity;
    int vni = ach_parse_vxlan(&at, &identity);
    if (vni < 0)
        return vni;
    __u32 local = vni;
    if (!bpf_map_lookup_elem(&vnis, &local))
        return -ACH_DROP_UNKNOWN_VNI;

    struct ethhdr *inner;
    struct ach_packet packet;
    int type = ach_parse_eth(&at, &inner);
    if (type != ACH_ETH_IPV4)
        return type < 0 ? type : -ACH_DROP_UNSUPPORTED_ETHERTYPE;
    int error = parse_packet(&at, vni, &packet);
    if (error)
        return error;
    __u32 *endpoint = bpf_map_lookup_elem(&endpoints, &packet.to);
    struct ach_port *port = endpoint ? port_in(*endpoint) : NULL;
    if (!port)
        return -ACH_DROP_UNKNOWN_ENDPOINT;
    *slot = *endpoint;
    if (!ach_same_mac(inner->h_dest, port->mac))
        return -ACH_DROP_FOREIGN_MAC;
    return arrived_packet(skb, &packet, *endpoint, port, config, ip->tos, identity);
}

/* The one exit: counts a drop for the vNIC whose packet it was, or for the host (slot 0). */
static __always_inline int finish(struct __sk_buff *skb, int verdict, __u32 slot) {
    if (verdict == ACH_NOT_OURS)
        return ACH_TC_NEXT;
    if (verdict > 0)
        return verdict;
    struct ach_port_counters *counted = counters_of(slot);
    __u32 reason = -verdict;
    if (counted && reason < ACH_DROP_SLOTS)
        counted->drops[reason]++;
    if (verdict < 0)
        sample_drop(skb, slot, reason);
    return ACH_TC_DROP;
}

#include "answers.h"

SEC("tc")
int from_guest(struct __sk_buff *skb) {
    __u32 slot = 0;
    int verdict = guest_frame(skb, &slot);
    return finish(skb, verdict, slot);
}

SEC("tc")
int from_underlay(struct __sk_buff *skb) {
    __u32 slot = 0;
    int verdict = underlay_frame(skb, &slot);
    return finish(skb, verdict, slot);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
