/* Fragments (RFC 791, RFC 8200): only the first has ports, and leaves them for those that follow.
 *
 * A receiver puts a datagram together only with a first fragment that the rules admitted, and no
 * later one may reach into its headers (RFC 1858, RFC 5722): what the rules saw is what the
 * receiver sees. A later fragment that comes before the first is dropped. */
#ifndef VSWITCH_FRAGMENT_H
#define VSWITCH_FRAGMENT_H

#include "scratch.h"

/* The packet is a later fragment: takes the ports of the first. packet->proto is the key's. */
static __always_inline int fragment_recall(struct packet_scratch *scratch) {
    struct ach_packet *packet = &scratch->packet;
    struct fragment_ports *known = bpf_map_lookup_elem(&fragments, &scratch->fragment);
    if (!known || packet->offset * 8u < known->headers)
        return -ACH_DROP_FRAGMENT;
    packet->sport = known->sport;
    packet->dport = known->dport;
    packet->proto = known->proto;
    packet->icmp_type = known->icmp_type;
    packet->icmp_code = known->icmp_code;
    return 0;
}

/* The packet is the first fragment. `headers`: of the datagram's fragmentable part. */
static __always_inline void fragment_remember(struct packet_scratch *scratch, __u16 headers) {
    const struct ach_packet *packet = &scratch->packet;
    struct fragment_ports *found = &scratch->ports;
    found->sport = packet->sport;
    found->dport = packet->dport;
    found->headers = headers;
    found->proto = packet->proto;
    found->icmp_type = packet->icmp_type;
    found->icmp_code = packet->icmp_code;
    found->reserved = 0;
    bpf_map_update_elem(&fragments, &scratch->fragment, found, BPF_ANY);
}

/* Which datagram the packet is part of. */
static __always_inline void fragment_key(struct packet_scratch *scratch) {
    const struct ach_packet *packet = &scratch->packet;
    struct fragment_key *key = &scratch->fragment;
    key->from = packet->from;
    ach_copy_ip(key->to, packet->to.ip);
    key->id = packet->fragment_id;
    key->proto = packet->proto;
    key->family = packet->family;
    key->reserved = 0;
}

#endif
