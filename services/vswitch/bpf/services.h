/* What a host answers for the network itself: DHCP and router solicitations, each by a program of
 * its own (answers.h), so that the packet path's stays small. */
#ifndef VSWITCH_SERVICES_H
#define VSWITCH_SERVICES_H

#include "maps.h"
#include "ach_parse.h"

enum service {
    SERVICE_NONE,
    SERVICE_DHCP4,
    SERVICE_DHCP6,
    SERVICE_ROUTER, /* solicitations */
    SERVICES,
};

#define SERVICES_IPV6       0x86dd
#define SERVICES_ICMPV6     58
#define DHCP4_SERVER_PORT   67
#define DHCP6_SERVER_PORT   547
#define ROUTER_SOLICITATION 133

int answer_dhcp4(struct __sk_buff *skb);
int answer_dhcp6(struct __sk_buff *skb);
int answer_router(struct __sk_buff *skb);

/* Pinned with the other maps: an upgrade puts its programs in the place of those before. */
struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, SERVICES);
    __uint(key_size, sizeof(__u32)); /* the kernel takes no BTF for these */
    __array(values, int(struct __sk_buff *));
} services SEC(".maps") = {
    .values =
        {
            [SERVICE_DHCP4] = (void *)&answer_dhcp4,
            [SERVICE_DHCP6] = (void *)&answer_dhcp6,
            [SERVICE_ROUTER] = (void *)&answer_router,
        },
};

/* To everyone, or to the router, which stands for the server. */
static __always_inline __u32 service4(struct ach_cursor *at, const struct ach_port *port) {
    struct iphdr *ip = ach_take(at, sizeof(*ip));
    if (!ip || ip->protocol != IPPROTO_UDP || ip->ihl != 5 ||
        ip->frag_off & bpf_htons(ACH_MF | ACH_OFFSET))
        return SERVICE_NONE;
    struct udphdr *udp = ach_take(at, sizeof(*udp));
    if (!udp || udp->dest != bpf_htons(DHCP4_SERVER_PORT))
        return SERVICE_NONE;
    return ip->daddr == ~0u || ip->daddr == ach_words(port->router)[3] ? SERVICE_DHCP4
                                                                       : SERVICE_NONE;
}

/* To a multicast or link-local address: what a vNIC without IPv6 asks is not answered here. */
static __always_inline __u32 service6(struct ach_cursor *at, const struct ach_port *port) {
    struct ipv6hdr *ip = ach_take(at, sizeof(*ip));
    if (!ip || (ip->nexthdr != IPPROTO_UDP && ip->nexthdr != SERVICES_ICMPV6) || !port->prefix_len6)
        return SERVICE_NONE;
    const __u8 *to = ip->daddr.in6_u.u6_addr8;
    if (to[0] != 0xff && (to[0] != 0xfe || (to[1] & 0xc0) != 0x80))
        return SERVICE_NONE;
    if (ip->nexthdr == SERVICES_ICMPV6) {
        struct icmp6hdr *icmp = ach_take(at, sizeof(*icmp));
        return icmp && icmp->icmp6_type == ROUTER_SOLICITATION ? SERVICE_ROUTER : SERVICE_NONE;
    }
    struct udphdr *udp = ach_take(at, sizeof(*udp));
    return udp && udp->dest == bpf_htons(DHCP6_SERVER_PORT) ? SERVICE_DHCP6 : SERVICE_NONE;
}

/* The service that the frame asks, `at` being behind its Ethernet header. */
static __always_inline __u32 asked_service(struct ach_cursor at, int type,
                                           const struct ach_port *port) {
    if (type == ACH_ETH_IPV4)
        return service4(&at, port);
    return type == SERVICES_IPV6 ? service6(&at, port) : SERVICE_NONE;
}

#endif
