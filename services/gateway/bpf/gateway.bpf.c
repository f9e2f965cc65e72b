/* A gateway: relays packets whose sender does not know the receiver's host yet, and answers
 * probes. Attached at the tc ingress of the underlay device. */
#include "ach_kernel.h"

#include "maps.h"
#include "ach_vxlan.h"
#include "probe.h"
#include "push.h"
#include "routes.h"

#define UNDERLAY_HEADERS 124 /* Ethernet, 50 of the underlay, inner IPv4 with options, or IPv6 */
#define INNER_MAC_AT     50  /* the inner destination MAC, behind 14 + 20 + 8 + 8 */

/* Reads the inner packet's destination. */
static __always_inline int receiver_of(struct ach_cursor *at, int type, __u8 *to) {
    if (type == ACH_ETH_IPV4) {
        struct iphdr *ip;
        int proto = ach_parse_ipv4(at, &ip);
        int error = proto < 0 ? proto : ach_limit_ipv4(at, ip);
        if (!error)
            ach_map_ipv4(to, ip->daddr);
        return error;
    }
    if (type != ACH_ETH_IPV6)
        return -ACH_DROP_UNSUPPORTED_ETHERTYPE;
    struct ipv6hdr *ip;
    int next = ach_parse_ipv6(at, &ip);
    if (next < 0)
        return next;
    ach_copy_ip(to, (const __u8 *)&ip->daddr);
    return ach_is_reserved6(to) ? -ACH_DROP_BAD_ADDRESS : 0;
}

/* Where the inner packet goes, or NULL with the reason in `verdict`. */
static __always_inline struct ach_route *route_of(struct ach_cursor *at, struct ach_vni_ip *to,
                                                  int *verdict) {
    struct ethhdr *eth;
    __u16 identity; /* the sender's: it is the receiver's host that asks, and the header stays */
    *verdict = ach_parse_vxlan(at, &identity);
    if (*verdict < 0)
        return NULL;
    to->vni = *verdict;
    int type = ach_parse_eth(at, &eth);
    *verdict = type < 0 ? type : receiver_of(at, type, to->ip);
    if (*verdict < 0)
        return NULL;
    *verdict = -ACH_DROP_NO_ROUTE;
    return find_route(to);
}

/* New outer addresses and the receiver's MAC; segments of a GSO frame get the same ones later. */
static __always_inline int rewrite(struct __sk_buff *skb, struct iphdr *ip, struct udphdr *udp,
                                   __be32 vtep, const struct ach_route *route) {
    __u8 mac[6] __attribute__((aligned(2)));
    ach_copy_mac(mac, route->mac);
    ip->ttl--;
    ip->saddr = vtep;
    ip->daddr = route->vtep;
    ip->check = 0;
    ip->check = ach_ipv4_checksum(ip);
    udp->check = 0; /* it would cover the addresses; our vSwitches send none */
    return bpf_skb_store_bytes(skb, INNER_MAC_AT, mac, sizeof(mac), BPF_F_RECOMPUTE_CSUM);
}

static __always_inline int relay_packet(struct __sk_buff *skb, struct ach_cursor *at,
                                        struct iphdr *ip, struct udphdr *udp,
                                        const struct ach_gateway_config *config,
                                        struct ach_gateway_counters *counted) {
    int verdict;
    struct ach_vni_ip to;
    struct ach_route *route = route_of(at, &to, &verdict);
    if (!route)
        return verdict;
    if (ip->ttl <= 1)
        return -ACH_DROP_TTL_EXPIRED;
    struct ach_relayed_event relayed = {.vni = to.vni, .vtep = ip->saddr};
    ach_copy_ip(relayed.ip, to.ip);
    tell_relayed(&relayed, config, counted);
    if (rewrite(skb, ip, udp, config->vtep, route))
        return -ACH_DROP_ENCAP_FAILED;
    return bpf_redirect_neigh(config->underlay_ifindex, NULL, 0, 0);
}

/* Only hosts may ask: a gateway that sends to a gateway would make a loop. */
static __always_inline int check_asker(__be32 vtep) {
    __u8 *kind = bpf_map_lookup_elem(&vteps, &vtep);
    if (!kind)
        return -ACH_DROP_UNKNOWN_VTEP;
    return *kind == ACH_VTEP_HOST ? 0 : -ACH_DROP_GATEWAY_LOOP;
}

static __always_inline int underlay_frame(struct __sk_buff *skb,
                                          struct ach_gateway_counters *counted) {
    const struct ach_gateway_config *config = gateway_config();
    struct ach_cursor at = ach_cursor(skb, UNDERLAY_HEADERS);
    struct iphdr *ip;
    struct udphdr *udp;
    int port = config ? ach_parse_underlay(&at, config->vtep, &ip, &udp) : ACH_NOT_OURS;
    if (port < 0)
        return port;
    if (port == ACH_NOT_OURS || skb->vlan_present)
        return ACH_NOT_OURS;
    int error = check_asker(ip->saddr);
    if (error)
        return error;
    if (port == ACH_PROBE_PORT) {
        int answered = answer_probe(skb, &at, ip, udp, config);
        counted->probes += answered >= 0;
        return answered;
    }
    int relayed = relay_packet(skb, &at, ip, udp, config, counted);
    if (relayed >= 0) {
        counted->relayed_packets++;
        counted->relayed_bytes += skb->len;
    }
    return relayed;
}

SEC("tc")
int relay(struct __sk_buff *skb) {
    struct ach_gateway_counters *counted = gateway_counters();
    if (!counted)
        return ACH_TC_NEXT;
    int verdict = underlay_frame(skb, counted);
    if (verdict == ACH_NOT_OURS)
        return ACH_TC_NEXT;
    if (verdict > 0)
        return verdict;
    __u32 reason = -verdict;
    if (reason < ACH_DROP_SLOTS)
        counted->drops[reason]++;
    return ACH_TC_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
