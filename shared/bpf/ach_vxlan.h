/* VXLAN over IPv4 (RFC 7348), its outer headers written and removed by hand.
 *
 * The frame's own Ethernet header stays in front: it becomes the outer one on the way out, where
 * redirect_neigh fills it in, and the inner one again on the way in. */
#ifndef ACH_VXLAN_H
#define ACH_VXLAN_H

#include "ach_parse.h"
#include "ach_verdict.h"

#define ACH_VXLAN_VNI  0x08000000 /* flag I, the only one that we ask for */
#define ACH_VXLAN_GBP  0x80000000 /* flag G: a group policy ID in the lower 16 bits of the word */
#define ACH_VXLAN_ID   0x0000ffff
#define ACH_OUTER_TTL  64
#define ACH_DF         0x4000
#define ACH_ECN_CE     3
#define ACH_EALREADY   114
#define ACH_FIRST_PORT 49152 /* source ports, chosen by flow, are the dynamic ones (RFC 6335) */
#define ACH_PORT_MASK  0x3fff

#define ACH_ENCAP_L2(bytes)                                                                        \
    ((__u64)((bytes)&BPF_ADJ_ROOM_ENCAP_L2_MASK) << BPF_ADJ_ROOM_ENCAP_L2_SHIFT)

struct ach_vxlan {
    __be32 flags;
    __be32 vni; /* upper 24 bits */
};

/* What lies between the frame's Ethernet header and the guest's IP header: ACH_ENCAP_LEN. */
struct ach_outer {
    struct iphdr ip;
    struct udphdr udp;
    struct ach_vxlan vxlan;
    struct ethhdr eth;
} __attribute__((packed));

_Static_assert(sizeof(struct ach_outer) == ACH_ENCAP_LEN, "outer headers of 50 bytes");

struct ach_tunnel {
    __be32 from; /* VTEPs */
    __be32 to;
    __u32 vni;
    const __u8 *smac; /* of the inner frame */
    const __u8 *dmac;
    __u16 type;     /* EtherType of the inner frame */
    __u16 identity; /* of the sender; sent only when it is not 0 */
    __u8 tos;
};

/* The checksum of a header without options whose field `check` is 0. */
static __always_inline __u16 ach_ipv4_checksum(const struct iphdr *ip) {
    const ach_half *half = (const ach_half *)ip;
    __u32 sum = 0;
    for (int i = 0; i < 10; i++)
        sum += half[i];
    sum = (sum & 0xffff) + (sum >> 16);
    return ~(sum + (sum >> 16));
}

/* Reads a frame of the underlay up to its UDP header. Returns ACH_VXLAN_PORT or ACH_PROBE_PORT for
 * a whole datagram to that port of `vtep`, `at` being at its payload; ACH_NOT_OURS for what the
 * kernel shall judge. */
static __always_inline int ach_parse_underlay(struct ach_cursor *at, __be32 vtep, struct iphdr **ip,
                                              struct udphdr **udp) {
    struct ethhdr *eth;
    if (ach_parse_eth(at, &eth) != ACH_ETH_IPV4 || ach_parse_ipv4(at, ip) != IPPROTO_UDP)
        return ACH_NOT_OURS;
    if ((*ip)->daddr != vtep || (*ip)->frag_off & bpf_htons(ACH_OFFSET))
        return ACH_NOT_OURS;
    __u32 followed_by = at->left;
    *udp = ach_take(at, sizeof(**udp));
    if (!*udp)
        return ACH_NOT_OURS;
    int port = bpf_ntohs((*udp)->dest);
    if (port != ACH_VXLAN_PORT && port != ACH_PROBE_PORT)
        return ACH_NOT_OURS;
    if ((*ip)->ihl != 5) /* ours never have options: what follows lies at fixed offsets */
        return -ACH_DROP_BAD_IP_HEADER;
    if ((*ip)->frag_off & bpf_htons(ACH_MF))
        return -ACH_DROP_FRAGMENT;
    __u32 carried = (__u32)bpf_ntohs((*ip)->tot_len) - sizeof(**ip);
    __u32 length = bpf_ntohs((*udp)->len);
    if (carried > followed_by || length > carried)
        return -ACH_DROP_TRUNCATED;
    int error = ach_limit(at, (__s32)length - (__s32)sizeof(**udp));
    return error ? error : port;
}

/* Returns the VNI. Bits other than I and G are ignored on receipt (RFC 7348, section 5).
 * `identity`: the group policy ID (draft-smith-vxlan-group-policy), 0 without. */
static __always_inline int ach_parse_vxlan(struct ach_cursor *at, __u16 *identity) {
    struct ach_vxlan *vxlan = ach_take(at, sizeof(*vxlan));
    if (!vxlan)
        return -ACH_DROP_TRUNCATED;
    if (!(vxlan->flags & bpf_htonl(ACH_VXLAN_VNI)))
        return -ACH_DROP_BAD_VXLAN;
    __u32 flags = bpf_ntohl(vxlan->flags);
    *identity = flags & ACH_VXLAN_GBP ? flags & ACH_VXLAN_ID : 0;
    return bpf_ntohl(vxlan->vni) >> 8;
}

/* Room for the outer headers of a packet that came out of a tunnel itself and that its guest
 * forwards. It still has the kernel's marks of encapsulation, its inner headers are where they
 * were, and the kernel refuses to mark it once more: nothing but room is needed. For IPv6, the one
 * way to say that IPv4 comes first now is to remove a few bytes as if they had been IPv4's. */
static __always_inline int ach_room_again(struct __sk_buff *skb, __u16 type) {
    const __u32 spare = type == ACH_ETH_IPV6 ? 4 : 0;
    int error =
        bpf_skb_adjust_room(skb, ACH_ENCAP_LEN + spare, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO);
    if (error || !spare)
        return error;
    return bpf_skb_adjust_room(skb, -(__s32)spare, BPF_ADJ_ROOM_MAC,
                               BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_DECAP_L3_IPV4);
}

static __always_inline int ach_room(struct __sk_buff *skb, __u16 type) {
    __u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 |
                  BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2_ETH |
                  ACH_ENCAP_L2(sizeof(struct ethhdr));
    int error = bpf_skb_adjust_room(skb, ACH_ENCAP_LEN, BPF_ADJ_ROOM_MAC, flags);
    return error == -ACH_EALREADY ? ach_room_again(skb, type) : error;
}

/* Puts outer headers in front of a guest's packet; the kernel segments it later if it must.
 * FIXED_GSO keeps segments at the size that the guest chose: it knows its MTU. */
static __always_inline int ach_encap(struct __sk_buff *skb, const struct ach_tunnel *tunnel) {
    __u16 length = skb->len - sizeof(struct ethhdr) + ACH_ENCAP_LEN;
    __u16 sport = ACH_FIRST_PORT | (bpf_get_hash_recalc(skb) & ACH_PORT_MASK);
    if (ach_room(skb, tunnel->type))
        return -ACH_DROP_ENCAP_FAILED;
    struct ach_outer *outer = (void *)(long)skb->data + sizeof(struct ethhdr);
    if ((void *)(outer + 1) > (void *)(long)skb->data_end)
        return -ACH_DROP_ENCAP_FAILED;
    struct ethhdr *eth = (void *)(long)skb->data;
    eth->h_proto = bpf_htons(ACH_ETH_IPV4);
    struct iphdr ip = {
        .version = 4,
        .ihl = 5,
        .tos = tunnel->tos,
        .tot_len = bpf_htons(length),
        .frag_off = bpf_htons(ACH_DF),
        .ttl = ACH_OUTER_TTL,
        .protocol = IPPROTO_UDP,
        .saddr = tunnel->from,
        .daddr = tunnel->to,
    };
    ip.check = ach_ipv4_checksum(&ip);
    outer->ip = ip;
    outer->udp.source = bpf_htons(sport);
    outer->udp.dest = bpf_htons(ACH_VXLAN_PORT);
    outer->udp.len = bpf_htons(length - sizeof(outer->ip));
    outer->udp.check = 0; /* as RFC 7348 has it: the guest's own checksums protect its data */
    __u32 policy = tunnel->identity ? ACH_VXLAN_GBP | tunnel->identity : 0;
    outer->vxlan.flags = bpf_htonl(ACH_VXLAN_VNI | policy);
    outer->vxlan.vni = bpf_htonl(tunnel->vni << 8);
    ach_copy_mac(outer->eth.h_dest, tunnel->dmac);
    ach_copy_mac(outer->eth.h_source, tunnel->smac);
    outer->eth.h_proto = bpf_htons(tunnel->type);
    return 0;
}

static __always_inline bool ach_is_congested(__u8 tos) {
    return (tos & ACH_ECN_CE) == ACH_ECN_CE;
}

/* Removes the outer headers of a frame that ach_parse_underlay accepted, whose inner frame is of
 * that EtherType. A congestion mark that the underlay set is handed on to the guest (RFC 6040). */
static __always_inline int ach_decap(struct __sk_buff *skb, __u16 type, __u8 outer_tos) {
    __u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;
    if (type == ACH_ETH_IPV6)
        flags |= BPF_F_ADJ_ROOM_DECAP_L3_IPV6;
    if (bpf_skb_adjust_room(skb, -ACH_ENCAP_LEN, BPF_ADJ_ROOM_MAC, flags))
        return -ACH_DROP_ENCAP_FAILED;
    struct ethhdr *eth = (void *)(long)skb->data;
    if ((void *)(eth + 1) > (void *)(long)skb->data_end)
        return -ACH_DROP_ENCAP_FAILED;
    eth->h_proto = bpf_htons(type);
    if (ach_is_congested(outer_tos))
        bpf_skb_ecn_set_ce(skb);
    return 0;
}

#endif
