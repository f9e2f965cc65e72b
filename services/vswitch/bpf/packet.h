/* A guest's IPv4 packet, from its first header to its ports. */
#ifndef VSWITCH_PACKET_H
#define VSWITCH_PACKET_H

#include "ach_parse.h"
#include "maps.h"

/* Only the first fragment has ports: it leaves them for those that follow. */
static __always_inline int parse_fragment(struct ach_cursor *at, const struct iphdr *ip,
                                          struct ach_packet *packet) {
    struct fragment_key key = {.from = packet->from, .id = ip->id, .proto = ip->protocol};
    ach_copy_ip(key.to, packet->to.ip);
    if (ip->frag_off & bpf_htons(ACH_OFFSET)) {
        struct fragment_ports *known = bpf_map_lookup_elem(&fragments, &key);
        if (!known)
            return -ACH_DROP_FRAGMENT;
        packet->sport = known->sport;
        packet->dport = known->dport;
        packet->icmp_type = known->icmp_type;
        packet->icmp_code = known->icmp_code;
        return 0;
    }
    int error = ach_parse_transport(at, packet);
    struct fragment_ports found = {packet->sport, packet->dport, packet->icmp_type,
                                   packet->icmp_code};
    if (!error)
        bpf_map_update_elem(&fragments, &key, &found, BPF_ANY);
    return error;
}

/* Reads the IPv4 packet at the cursor. Returns 0 or a drop reason. */
static __always_inline int parse_packet(struct ach_cursor *at, __u32 vni,
                                        struct ach_packet *packet) {
    struct iphdr *ip;
    int proto = ach_parse_ipv4(at, &ip);
    int error = proto < 0 ? proto : ach_limit_ipv4(at, ip);
    if (error)
        return error;
    packet->from.vni = vni;
    packet->to.vni = vni;
    ach_map_ipv4(packet->from.ip, ip->saddr);
    ach_map_ipv4(packet->to.ip, ip->daddr);
    packet->sport = 0;
    packet->dport = 0;
    packet->headers = ip->ihl * 4;
    packet->proto = proto;
    packet->tos = ip->tos;
    packet->tcp_flags = 0;
    packet->icmp_type = 0;
    packet->icmp_code = 0;
    if (ip->frag_off & bpf_htons(ACH_MF | ACH_OFFSET))
        return parse_fragment(at, ip, packet);
    return ach_parse_transport(at, packet);
}

#endif
