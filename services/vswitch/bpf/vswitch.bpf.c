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
#include "quote.h"
#include "sample.h"
#include "router.h"
#include "icmp.h"
#include "nd.h"
#include "services.h"

#define GUEST_HEADERS    94  /* Ethernet, IPv4 with options, TCP without; enough for IPv6 */
#define UNDERLAY_HEADERS 144 /* and 50 of the underlay before them */
#define TOUCH_NS         10000000

/* The vNIC whose packet is on its way out. */
struct sender {
    __u32 slot;
    const struct ach_port *port;
    struct ach_port_counters *counted;
    const struct ach_vswitch_config *config;
    struct packet_scratch *kept;
};

static __always_inline void count_sent(struct ach_port_counters *counted, __u32 bytes) {
    counted->tx_packets++;
    counted->tx_bytes += bytes;
}

/* The session has seen the packet; an ICMP error changes nothing in it. */
static __always_inline int commit(struct flow *flow, const struct ach_packet *packet, __u32 bytes) {
    return packet->error ? 0 : flow_commit(flow, packet, bytes);
}

/* The receiver is on this host as well: its rules apply, too. */
static __always_inline int forward_here(struct __sk_buff *skb, struct flow *flow,
                                        const struct ach_packet *packet,
                                        const struct sender *sender, const struct next_hop *next,
                                        bool routed) {
    int error = admit(flow, packet, flow->from ^ 1, next->slot, next->port,
                      ask(sender->kept, sender->port->identity));
    if (!error)
        error = commit(flow, packet, skb->len);
    if (!error && routed)
        error = count_hop(skb, packet);
    if (error)
        return error;
    count_sent(sender->counted, skb->len);
    sender->counted->local++;
    return to_guest(skb, next->slot, next->port);
}

/* To the receiver's host if the FC knows it, else by a gateway, and the agent hears of it. */
static __always_inline int forward_away(struct __sk_buff *skb, struct flow *flow,
                                        const struct ach_packet *packet,
                                        const struct sender *sender, const struct next_hop *next,
                                        bool routed) {
    struct ach_fc_entry *route = next->route;
    struct ach_tunnel tunnel = {
        .from = sender->config->vtep,
        .to = route ? route->vtep : gateway_for(&packet->to),
        .vni = sender->port->vni,
        .smac = sender->port->mac,
        .dmac = route ? route->mac : router_mac,
        .type = packet->family == 6 ? ACH_ETH_IPV6 : ACH_ETH_IPV4,
        .identity = sender->port->identity,
        .tos = packet->tos,
    };
    if (!tunnel.to)
        return -ACH_DROP_NO_GATEWAY;
    if (skb->len - sizeof(struct ethhdr) + ACH_ENCAP_LEN > 0xffff)
        return -ACH_DROP_TOO_BIG; /* more than one datagram of the underlay can say it has */
    __u32 bytes = skb->len;
    int verdict = commit(flow, packet, bytes);
    if (!verdict && routed)
        verdict = count_hop(skb, packet);
    if (!verdict)
        verdict = to_vtep(skb, &tunnel, sender->config);
    if (verdict < 0)
        return verdict; /* one that the kernel had no room to encapsulate was not sent */
    count_sent(sender->counted, bytes);
    if (route) {
        sender->counted->direct++;
        /* Not at every packet: the line is shared with other CPUs and with the agent. */
        if ((__s64)(flow->now - route->last_used_ns) > TOUCH_NS)
            route->last_used_ns = flow->now;
    } else {
        sender->counted->relayed++;
        learn_destination(&packet->to, sender->slot, flow->now, bytes, sender->config,
                          sender->counted);
    }
    return verdict;
}

/* The sender is the vNIC's own address, and the receiver one address. */
static __always_inline int check_addresses(const struct ach_packet *packet,
                                           const struct ach_port *port, bool group) {
    if (!ach_same_ip(packet->from.ip, own_address(packet, port)))
        return -ACH_DROP_SPOOFED_IP;
    if (group)
        return -ACH_DROP_MULTICAST;
    if (packet->family == 6)
        return ach_is_reserved6(packet->to.ip) ? -ACH_DROP_BAD_ADDRESS : 0;
    if (ach_is_multicast(ach_words(packet->to.ip)[3]) ||
        ach_is_broadcast(packet->to.ip, port->ip, port->prefix_len))
        return -ACH_DROP_MULTICAST;
    return 0;
}

/* What a router answers for itself: pings, and that it has no UDP service. */
static __always_inline int answer_as_router(struct __sk_buff *skb, const struct ach_packet *packet,
                                            __u32 slot, __u32 length) {
    if (packet->more || packet->offset || packet->error)
        return -ACH_DROP_FOR_ROUTER;
    if ((packet->proto == IPPROTO_ICMP && packet->icmp_type == ACH_ICMP_ECHO) ||
        (packet->proto == ACH_PROTO_ICMP6 && packet->icmp_type == ICMP6_ECHO))
        return answer_ping(skb, slot);
    if (packet->proto == IPPROTO_UDP)
        return refuse(skb, slot, ACH_DROP_FOR_ROUTER, 0, length);
    return -ACH_DROP_FOR_ROUTER;
}

/* Tells the sender, unless the packet is one that nobody is told about (RFC 1122, RFC 4443). */
static __always_inline int refuse_packet(struct __sk_buff *skb, const struct ach_packet *packet,
                                         __u32 slot, __u32 reason, __u32 mtu, __u32 length) {
    if (packet->error || packet->offset)
        return -(int)reason;
    return refuse(skb, slot, reason, mtu, length);
}

/* An admitted packet on its way to the next hop. `length`: of the IP packet, padding left out. */
static __always_inline int forward(struct __sk_buff *skb, struct flow *flow,
                                   const struct ach_packet *packet, const struct sender *sender,
                                   const struct next_hop *next, __u32 length) {
    bool routed = !is_on_link(packet, sender->port);
    if (routed && packet->ttl <= 1)
        return refuse_packet(skb, packet, sender->slot, ACH_DROP_TTL_EXPIRED, 0, length);
    __u32 mtu = path_mtu(sender->port, next, sender->config);
    if (ip_size(skb, packet) > mtu)
        return refuse_packet(skb, packet, sender->slot, ACH_DROP_TOO_BIG, mtu, length);
    return next->port ? forward_here(skb, flow, packet, sender, next, routed)
                      : forward_away(skb, flow, packet, sender, next, routed);
}

static __always_inline int guest_packet(struct __sk_buff *skb, struct ach_cursor *at, int type,
                                        bool group, const struct sender *sender) {
    const struct ach_port *port = sender->port;
    struct packet_scratch *kept = sender->kept;
    struct ach_packet *packet = &kept->packet;
    int error = parse_addresses(at, type, port->vni, packet);
    if (error)
        return error;
    if (packet->family == 6 && is_link_scope(packet))
        return link_packet(skb, sender->slot);
    error = check_addresses(packet, port, group);
    if (error)
        return error;
    __u32 length = packet->headers + at->left;
    error = parse_rest(skb, at, sizeof(struct ethhdr) + packet->headers, kept);
    if (error == -ACH_DROP_BAD_ND)
        return link_packet(skb, sender->slot);
    if (!error && packet->error)
        error = read_quote(skb, sizeof(struct ethhdr) + packet->headers);
    if (error)
        return error;
    if (packet->error && !ach_same_ip(packet->from.ip, own_address(packet, port)))
        return -ACH_DROP_UNRELATED_ICMP; /* it tells of what was never sent to it */
    struct flow flow;
    error = flow_open(&flow, packet, sender->config, sender->slot, 0);
    if (error)
        return error;
    if (flow.fresh) {
        if (is_for_router(packet, port))
            return answer_as_router(skb, packet, sender->slot, length);
        if (packet->error)
            return -ACH_DROP_UNRELATED_ICMP;
    }
    struct next_hop next;
    hop_resolve(&flow, packet, &next);
    error = admit(&flow, packet, flow.from, sender->slot, port,
                  ask(kept, identity_of_next(&flow, &next)));
    if (error == -ACH_DROP_IDENTITY_UNKNOWN) /* so that it is known when the guest tries again */
        learn_destination(&packet->to, sender->slot, flow.now, skb->len, sender->config,
                          sender->counted);
    if (error)
        return error;
    int verdict = forward(skb, &flow, packet, sender, &next, length);
    sender->counted->slow_path += flow.slow;
    return verdict;
}

/* A frame from the guest on this device. */
static __always_inline int guest_frame(struct __sk_buff *skb, __u32 *slot) {
    struct sender sender = {.config = vswitch_config(), .kept = packet_scratch()};
    __u32 ifindex = skb->ifindex;
    __u32 *bound = bpf_map_lookup_elem(&port_by_ifindex, &ifindex);
    if (!bound || !sender.config || !sender.kept)
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
    return guest_packet(skb, &at, type, eth->h_dest[0] & 1, &sender);
}

/* Where an inner packet's IP header begins. */
#define INNER_AT (sizeof(struct ethhdr) + ACH_ENCAP_LEN)

/* Reads the packet of another host's guest; its sender is nobody here. */
static __always_inline int parse_arrived(struct __sk_buff *skb, struct ach_cursor *at, int type,
                                         __u32 vni, struct ach_packet *packet) {
    int error = parse_addresses(at, type, vni, packet);
    if (error)
        return error;
    if (packet->family == 6 && (is_link_scope(packet) || ach_is_reserved6(packet->to.ip)))
        return -ACH_DROP_BAD_ADDRESS;
    return 0;
}

/* A packet from another host for the vNIC `port`, still in its outer headers. */
static __always_inline int arrived_packet(struct __sk_buff *skb, struct ach_cursor *at,
                                          struct packet_scratch *kept, __u32 slot,
                                          const struct ach_port *port,
                                          const struct ach_vswitch_config *config, __u8 outer_tos,
                                          __u16 identity) {
    struct ach_packet *packet = &kept->packet;
    if (bpf_map_lookup_elem(&endpoints, &packet->from))
        return -ACH_DROP_SPOOFED_IP; /* what this host's own vNICs send does not come from others */
    int error = parse_rest(skb, at, INNER_AT + packet->headers, kept);
    if (!error && packet->error)
        error = read_quote(skb, INNER_AT + packet->headers);
    if (error)
        return error;
    struct flow flow;
    error = flow_open(&flow, packet, config, slot, ACH_SESSION_ARRIVED);
    if (error)
        return error;
    if (flow.fresh && packet->error)
        return -ACH_DROP_UNRELATED_ICMP;
    error = admit(&flow, packet, flow.from ^ 1, slot, port,
                  ask(kept, identity_of_sender(&flow, identity)));
    if (!error)
        error = commit(&flow, packet, skb->len - ACH_ENCAP_LEN);
    struct ach_port_counters *counted = counters_of(slot);
    if (counted)
        counted->slow_path += flow.slow;
    __u16 type = packet->family == 6 ? ACH_ETH_IPV6 : ACH_ETH_IPV4;
    if (!error)
        error = ach_decap(skb, type, outer_tos);
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
    struct packet_scratch *kept = packet_scratch();
    int type = kept ? ach_parse_eth(&at, &inner) : -ACH_DROP_TRUNCATED;
    int error = type < 0 ? type : parse_arrived(skb, &at, type, vni, &kept->packet);
    if (error)
        return error;
    __u32 *endpoint = bpf_map_lookup_elem(&endpoints, &kept->packet.to);
    struct ach_port *port = endpoint ? port_in(*endpoint) : NULL;
    if (!port)
        return -ACH_DROP_UNKNOWN_ENDPOINT;
    *slot = *endpoint;
    if (!ach_same_mac(inner->h_dest, port->mac))
        return -ACH_DROP_FOREIGN_MAC;
    if (ach_is_congested(ip->tos) && !(kept->packet.tos & ACH_ECN_CE))
        return -ACH_DROP_LOST_CONGESTION; /* only a loss can tell its ends (RFC 6040, 4.2) */
    return arrived_packet(skb, &at, kept, *endpoint, port, config, ip->tos, identity);
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
