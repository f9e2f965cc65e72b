/* A guest's packet, from its first header to its ports, in two steps: who sends it to whom, which
 * the caller checks, and then what its transport says. A sender who lies leaves no trace. */
#ifndef VSWITCH_PACKET_H
#define VSWITCH_PACKET_H

#include "ipv6.h"

/* Reads the IP header at the cursor: addresses, and where it is in its datagram. */
static __always_inline int parse_ipv4_header(struct ach_cursor *at, struct ach_packet *packet) {
    struct iphdr *ip;
    int proto = ach_parse_ipv4(at, &ip);
    int error = proto < 0 ? proto : ach_limit_ipv4(at, ip);
    if (error)
        return error;
    ach_map_ipv4(packet->from.ip, ip->saddr);
    ach_map_ipv4(packet->to.ip, ip->daddr);
    __u16 place = bpf_ntohs(ip->frag_off);
    packet->headers = ip->ihl * 4;
    packet->proto = proto;
    packet->tos = ip->tos;
    packet->ttl = ip->ttl;
    packet->offset = place & ACH_OFFSET;
    packet->more = !!(place & ACH_MF);
    packet->fragment_id = ip->id;
    return 0;
}

static __always_inline int parse_ipv6_header(struct ach_cursor *at, struct ach_packet *packet) {
    struct ipv6hdr *ip;
    int proto = ach_parse_ipv6(at, &ip);
    if (proto < 0)
        return proto;
    ach_copy_ip(packet->from.ip, (const __u8 *)&ip->saddr);
    ach_copy_ip(packet->to.ip, (const __u8 *)&ip->daddr);
    packet->headers = sizeof(*ip);
    packet->proto = proto;
    packet->tos = ip->priority << 4 | ip->flow_lbl[0] >> 4;
    packet->ttl = ip->hop_limit;
    packet->offset = 0;
    packet->more = 0;
    packet->fragment_id = 0;
    return 0;
}

/* Reads the IP header at the cursor. Returns 0 or a drop reason. */
static __always_inline int parse_addresses(struct ach_cursor *at, int type, __u32 vni,
                                           struct ach_packet *packet) {
    packet->from.vni = vni;
    packet->to.vni = vni;
    packet->sport = 0;
    packet->dport = 0;
    packet->tcp_flags = 0;
    packet->icmp_type = 0;
    packet->icmp_code = 0;
    packet->error = 0;
    packet->reserved = 0;
    if (type == ACH_ETH_IPV4) {
        packet->family = 4;
        return parse_ipv4_header(at, packet);
    }
    if (type != ACH_ETH_IPV6)
        return -ACH_DROP_UNSUPPORTED_ETHERTYPE;
    packet->family = 6;
    return parse_ipv6_header(at, packet);
}

/* Reads the packet in `scratch` on from the end of its IP header, which is at `from` in the frame.
 */
static __always_inline int parse_rest(struct __sk_buff *skb, struct ach_cursor *at, __u32 from,
                                      struct packet_scratch *scratch) {
    struct ach_packet *packet = &scratch->packet;
    if (packet->family == 6)
        return parse_ipv6_rest(skb, from, at->left);
    if (!packet->offset && !packet->more)
        return ach_parse_transport(at, packet);
    fragment_key(scratch);
    if (packet->offset)
        return fragment_recall(scratch);
    __u16 before = packet->headers;
    int error = ach_parse_transport(at, packet);
    if (!error)
        fragment_remember(scratch, packet->headers - before);
    return error;
}

#endif
