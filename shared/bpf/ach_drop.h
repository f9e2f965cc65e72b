/* Why a packet was not delivered: the one definition of the reasons, append only.
 *
 * A function of the packet path returns a verdict (>= 0) or the negative of one of these; the one
 * exit of each program counts it. The second column is what a person reads in tables and docs. */
#ifndef ACH_DROP_H
#define ACH_DROP_H

#define ACH_DROP_REASONS(X)                                                                        \
    X(NONE, "not dropped")                                                                         \
    X(TRUNCATED, "a header is cut short or lies about its length")                                 \
    X(UNSUPPORTED_ETHERTYPE, "neither IPv4, IPv6 nor ARP")                                         \
    X(SPOOFED_MAC, "the source MAC is not the vNIC's")                                             \
    X(SPOOFED_IP, "the source address is not the vNIC's")                                          \
    X(BAD_IP_HEADER, "the IP header is malformed")                                                 \
    X(FRAGMENT, "a fragment of no known datagram, or one that would overwrite its ports")          \
    X(MULTICAST, "a multicast or broadcast destination, which a VPC does not carry")               \
    X(ACL_EGRESS, "no security-group rule of the sender allows it")                                \
    X(ACL_INGRESS, "no security-group rule of the receiver allows it")                             \
    X(SESSION_TABLE_FULL, "no room for another session")                                           \
    X(NO_GATEWAY, "the route is not known here and no gateway is configured")                      \
    X(UNKNOWN_VTEP, "the outer source is neither a host nor a gateway of the fleet")               \
    X(BAD_VXLAN, "the VXLAN header is malformed (RFC 7348)")                                       \
    X(UNKNOWN_VNI, "no vNIC of this VNI is on this host")                                          \
    X(UNKNOWN_ENDPOINT, "the inner destination address is not on this host")                       \
    X(FOREIGN_MAC, "the inner destination MAC is not the vNIC's")                                  \
    X(TOO_BIG, "larger than the MTU of the path to its receiver")                                  \
    X(ENCAP_FAILED, "the kernel refused to make or remove the outer headers")                      \
    X(NO_ROUTE, "the gateway has no route for this destination")                                   \
    X(GATEWAY_LOOP, "a gateway was sent a packet by a gateway")                                    \
    X(TTL_EXPIRED, "the time to live, or hop limit, ran out")                                      \
    X(BAD_PROBE, "a malformed gateway probe")                                                      \
    X(BAD_ARP, "a malformed ARP message or one for an address off the subnet")                     \
    X(PORT_NOT_READY, "the device has no vNIC bound to it yet")                                    \
    X(IDENTITY_UNKNOWN, "the receiver's groups, by which a rule decides, are not known yet")       \
    X(BAD_DHCP, "a malformed DHCP or DHCPv6 message (RFC 2131, RFC 8415)")                         \
    X(BAD_RS, "a malformed router solicitation (RFC 4861)")                                        \
    X(SESSION_LIMIT, "the vNIC has as many sessions as it may have")                               \
    X(TCP_MIDSTREAM, "a TCP packet of no session, and not the first of one")                       \
    X(EXTENSION_HEADERS, "IPv6 extension headers that are too many, out of order or deprecated")   \
    X(BAD_ADDRESS, "an IPv6 address that no packet between guests carries")                        \
    X(LINK_LOCAL, "link-local IPv6 traffic other than with the router")                            \
    X(BAD_ND, "a malformed neighbour discovery message or one that a guest may not send")          \
    X(FOR_ROUTER, "for the router itself, which only answers ping")                                \
    X(UNRELATED_ICMP, "an ICMP error that quotes no packet of a session of its receiver")          \
    X(LOST_CONGESTION, "marked as congested on the underlay, for ends that know no marks")

enum ach_drop {
#define ACH_DROP_ENUM(name, text) ACH_DROP_##name,
    ACH_DROP_REASONS(ACH_DROP_ENUM)
#undef ACH_DROP_ENUM
        ACH_DROP_COUNT,
};

/* Room in the counters for reasons to come: a new reason does not change a map's layout. */
#define ACH_DROP_SLOTS 64

#endif
