/* Keys, values and events: the only definition of what eBPF and Python share.
 *
 * Python derives its numpy dtypes from these through BTF. Integers are in host order unless their
 * type says __be; addresses are 16 bytes, IPv4 mapped (::ffff:a.b.c.d). Rename a map when a layout
 * that it holds changes: a pinned map of the old layout is then never misread. */
#ifndef ACH_LAYOUT_H
#define ACH_LAYOUT_H

#include "ach_drop.h"

#define ACH_VXLAN_PORT     4789
#define ACH_PROBE_PORT     4798       /* UDP: is the gateway alive, are its tables fresh */
#define ACH_PROBE_MAGIC    0x41434850 /* "ACHP" */
#define ACH_ENCAP_LEN      50         /* outer IPv4 20, UDP 8, VXLAN 8, inner Ethernet 14 */
#define ACH_MAX_RULES      512        /* of one direction of one vNIC */
#define ACH_SAMPLE_BYTES   128        /* of a dropped frame: its headers */
#define ACH_GATEWAY_SLOTS  1024       /* rendezvous table: (vni, destination) hashes to a slot */
#define ACH_GATEWAY_SHARDS 64         /* VNIs modulo this: each shard has such a table */

struct ach_vni_ip {
    __u32 vni;
    __u8 ip[16];
};

/* ---- vSwitch -------------------------------------------------------------------------------- */

/* How far a session has come: session_state in session.h derives it from its flags. */
enum ach_session_state {
    ACH_STATE_TCP_SYN_SENT,     /* half open */
    ACH_STATE_TCP_SYN_RECEIVED, /* answered by SYN, not yet acknowledged: half open */
    ACH_STATE_TCP_ESTABLISHED,
    ACH_STATE_TCP_CLOSING, /* one side has sent FIN */
    ACH_STATE_TCP_CLOSED,  /* both have, or one a RST */
    ACH_STATE_UDP_SENT,
    ACH_STATE_UDP_REPLIED,
    ACH_STATE_ICMP,
    ACH_STATE_OTHER,
    ACH_SESSION_STATES,
};

/* config[0]. mmapped: the agent writes, programs read. */
struct ach_vswitch_config {
    __be32 vtep; /* own underlay address */
    __u32 underlay_ifindex;
    __u64 learn_interval_ns;  /* at most one learn event per destination in this time */
    __u32 learn_per_window;   /* at most so many learn events per vNIC, CPU and 100 ms */
    __u32 samples_per_window; /* likewise of dropped packets that are sampled */
    __u32 refuse_midstream;   /* 1: only a SYN opens a TCP session */
    __u32 underlay_mtu;       /* of the underlay device: inner packets fit in it less the encap */
    __u32 learn_packets;      /* a destination is worth a route after so many relayed packets, */
    __u32 learn_bytes;        /* or so many bytes (0: packets alone decide), */
    __u64 learn_after_ns;     /* and so long after the first of them */
    __u64 learn_pause_ns;     /* after a pause so long it starts again from nothing */
    /* By enum ach_session_state: idle for longer, a session is as good as gone. */
    __u64 session_timeout_ns[ACH_SESSION_STATES];
    __u32 session_limit; /* of a vNIC that has none of its own: see ach_port */
    __u32 session_ring;  /* entries of the map of that name */
    /* Of the own underlay address, 96..128: VTEPs of its network are neighbours and need no look at
     * the routes. 0: not known. */
    __u32 underlay_prefix_len;
    __u32 reserved;
};

enum ach_port_flags {
    ACH_PORT_PEER = 1, /* a veth: deliver by redirect_peer */
};

/* ports[slot], mmapped; slot 0 stands for the host itself and is never a vNIC.
 * generation changes when the slot changes hands; acl_gen when its rules do: written last. */
struct ach_port {
    __u32 generation; /* odd: in use, even: free */
    __u32 ifindex;
    __u32 vni;
    __u32 acl_gen;
    __u32 acl_in; /* key of acl; 0: allow nothing */
    __u32 acl_out;
    __u8 ip[16];      /* IPv4, mapped */
    __u8 router[16];  /* the subnet's router: ARP for it is answered */
    __u8 ip6[16];     /* IPv6; all 0: the vNIC has none */
    __u8 router6[16]; /* the subnet's IPv6 router: ND for it is answered */
    __u8 mac[6];
    __u8 prefix_len; /* of the IPv4 subnet, 96..128 */
    __u8 flags;      /* enum ach_port_flags */
    __u16 mtu;
    __u16 identity;   /* of its security groups; 0: none that matters */
    __u8 prefix_len6; /* of the IPv6 subnet, 0..128 */
    __u8 reserved[3];
    /* Sessions that it may open, and as many that others may open to it; 0: the host's default. */
    __u32 session_limit;
};

/* leases[port slot], mmapped: what DHCP and router advertisements tell the guest. The agent
 * prepares it as bytes of these messages, so that the packet path only puts them in their place; a
 * reply made while it writes may be garbled, and the guest asks again. Lengths are those in use. */
struct ach_lease {
    __u32 lease_s;
    __u16 dhcp4_len;
    __u16 dhcp6_len;
    __u16 advert_len;
    __u16 ready;      /* 1: it is filled in */
    __u8 dhcp4[192];  /* options: 54, 51, 58, 59, and then any without 53, 61 and the end */
    __u8 dhcp6[96];   /* options: server identifier (a DUID-LL), and then any but IAs */
    __u8 advert[144]; /* ICMPv6 with checksum 0; none: the vNIC has no IPv6 */
};

/* fc[slot], mmapped; slot 0 means none. An entry in use is never rewritten but for last_used_ns and
 * revision: a changed route gets a fresh slot, then the index, then the old slot's generation moves
 * on and with it every session that named it takes the slow path. */
struct ach_fc_entry {
    __u32 generation; /* odd: in use, even: free */
    __u32 vni;
    __u8 ip[16];
    __be32 vtep;
    __u8 mac[6]; /* of the destination vNIC: the inner destination MAC */
    __u16 mtu;
    __u16 identity; /* of the destination's security groups; 0: none that matters */
    __u16 reserved;
    __u64 revision;     /* of the route, as the gateway gave it */
    __u64 last_used_ns; /* CLOCK_MONOTONIC, written by the packet path */
};

/* Sessions: one entry for both directions. Side 0 is the lower (ip, port) pair, memcmp order of the
 * 16 address bytes and then of the port in network order; ICMP echo uses its identifier as both
 * ports, other ICMP its type and code (ach_icmp_ports). */
struct ach_session_key {
    __u32 vni;
    __u8 ip[2][16];
    __be16 port[2];
    __u8 proto;
    __u8 reserved[3];
};

#define ACH_HOP_NONE  0
#define ACH_HOP_LOCAL 0x80000000u /* | slot in ports; without it: slot in fc */

struct ach_hop {
    __u32 slot;       /* ACH_HOP_NONE: not known yet, look it up (and relay) */
    __u32 generation; /* of that slot when the session learned it */
};

enum ach_session_flags {
    ACH_SESSION_INITIATOR_1 = 1, /* side 1 sent the first packet */
    ACH_SESSION_REPLIED = 2,     /* the other side has answered */
    ACH_SESSION_FIN_0 = 4,       /* TCP: side 0 has sent FIN */
    ACH_SESSION_FIN_1 = 8,
    ACH_SESSION_RST_0 = 16, /* TCP: side 0 has sent RST, and nothing else since */
    ACH_SESSION_RST_1 = 32,
    ACH_SESSION_ESTABLISHED = 64, /* TCP: both sides have acknowledged */
    ACH_SESSION_ARRIVED = 128,    /* opened from another host: its owner is the receiver */
};

struct ach_session {
    __u64 created_ns;
    __u64 last_seen_ns;
    struct ach_hop hop[2]; /* towards side 0, towards side 1 */
    __u32 acl_gen[2];      /* of the local port on that side when it was admitted; 0: not local */
    __u32 acl_port[2];     /* slot of that local port; 0: not local */
    __u32 flags;           /* enum ach_session_flags; changed by atomic and, or */
    __u32 owner;           /* slot of the local vNIC that it is charged to; 0: nobody */
    __u64 packets[2];      /* sent by side 0, by side 1 */
    __u64 bytes[2];
    __u16 identity[2]; /* of each side, when the other was admitted; 0: none or not known */
    __u32 reserved;    /* with the kernel's own words an entry is 192 bytes: three cache lines */
};

/* session_counts[port slot], mmapped: of sessions that the vNIC has opened [0], and that others
 * have opened to it [1]. Each only grows; opened - closed are there. The packet path adds to both;
 * the agent adds to `closed` what it removes, and corrects it after each pass over the sessions. */
struct ach_session_counts {
    __u64 opened[2];
    __u64 closed[2];
};

/* session_hands[0], mmapped: positions in session_ring, each modulo its size. The ring holds the
 * keys of sessions in the order of their making, so that the packet path finds old ones when it
 * needs room and no agent is there to make any. */
struct ach_session_hands {
    __u64 head;      /* the next key goes here */
    __u64 hand;      /* the next key to look at */
    __u64 reclaimed; /* sessions that the packet path removed for want of room */
};

/* acl_sets: rule set id -> where its classifier lies in acl_words. A rule set is immutable; a
 * change makes a new id. Its rules stand in the order of evaluation, lower priority numbers first
 * and deny before allow; bit i of a vector, of (rules + 63) / 64 words, is the rule in place i.
 * From word `at` on, one after the other: services starts of intervals of the service key,
 * ascending from 0 prefixes starts of intervals of addresses, ascending from 0, two words each, the
 * upper first identities numbers, ascending the vector of the rules that allow a vector for each
 * service interval, and for each prefix interval: the rules that cover it a vector for identities
 * that are not listed: the rules that name no group one for when the identity is not known, as if
 * all allow rules that name a group matched it and none that denies; one for the opposite a vector
 * for each listed identity */
struct ach_ruleset {
    __u32 at;
    __u32 rules;
    __u32 services;
    __u32 prefixes;
    __u32 identities;
    __u32 groups;    /* rules that name a security group */
    __u8 digest[16]; /* of the rules: by it an agent knows its predecessor's sets again */
};

/* The service key: protocol, then the destination port or ICMP type and code, else 0. */
#define ACH_SERVICE(proto, detail) ((__u32)(proto) << 16 | (detail))

/* counters[port slot], per CPU. tx and rx count what was forwarded, in the guest's bytes with its
 * Ethernet header; a GSO frame counts once. tx_packets = local + direct + relayed. */
struct ach_port_counters {
    __u64 tx_packets; /* from the guest */
    __u64 tx_bytes;
    __u64 rx_packets; /* to the guest */
    __u64 rx_bytes;
    __u64 local;   /* of tx: to a vNIC on this host */
    __u64 direct;  /* of tx: to another host by the FC */
    __u64 relayed; /* of tx: by a gateway */
    __u64 slow_path;
    __u64 learn_events;
    __u64 learn_window; /* the 100 ms window that learn_in_window counts */
    __u64 learn_in_window;
    __u64 sample_window; /* likewise */
    __u64 samples_in_window;
    __u64 samples_lost; /* dropped packets that were counted but not sampled */
    __u64 drops[ACH_DROP_SLOTS];
};

/* learn ring: a destination that was relayed because the FC does not know it. */
struct ach_learn_event {
    __u32 vni;
    __u8 ip[16];
    __u32 port; /* slot of the sender */
    __u64 at_ns;
};

/* samples ring: a dropped packet, as far as it is kept. */
struct ach_drop_sample {
    __u64 at_ns;
    __u32 slot;       /* of the vNIC that the drop was counted for; 0: the host */
    __u32 generation; /* of that slot */
    __u32 reason;     /* enum ach_drop */
    __u32 rule_set;   /* of acl_sets, if security groups denied it; else 0 */
    __u32 rule;       /* the place in it of the rule that did; 0xffff: none matched */
    __u32 length;     /* of the frame */
    __u16 kept;       /* bytes of `frame` */
    __u16 underlay;   /* 1: the frame came from the underlay, outer headers included */
    __u32 reserved;
    __u8 frame[ACH_SAMPLE_BYTES];
};

enum ach_vtep_kind {
    ACH_VTEP_HOST = 1,
    ACH_VTEP_GATEWAY = 2,
};

/* ---- gateway -------------------------------------------------------------------------------- */

struct ach_gateway_config {
    __be32 vtep;
    __u32 underlay_ifindex;
    __u64 heartbeat_ns; /* CLOCK_MONOTONIC; renewed by the agent only while its tables are fresh */
    __u64 push_interval_ns; /* one event per destination and host in this time; 0: none at all */
    __u32 push_per_window;  /* at most so many per CPU and 100 ms */
    __u32 reserved;
};

/* relayed_for ring: a packet from this host was relayed to a destination that has a route. */
struct ach_relayed_event {
    __u32 vni;
    __u8 ip[16];
    __be32 vtep; /* of the sender's host */
};

/* The routes, as the agent keeps them (shared/achelous_shared/route_following/index.py says how)
 * and the relay finds them (routes.h): both use the same memory. A row, once a slot leads to it, is
 * not written before every program that may have found it has ended. */
#define ACH_ROUTE_SLOTS    8  /* of a bucket */
#define ACH_ROUTE_FARTHEST 32 /* buckets from its home that a key lies at most */
#define ACH_ROUTE_MIX      0xd6e8feb86659fd93ull

/* route_table[0], mmapped. */
struct ach_route_table {
    __u64 factors[3]; /* of the hash, odd and random */
    __u32 shift;      /* by which it makes a bucket */
    __u32 mask;       /* buckets - 1 */
};

/* route_buckets[bucket], mmapped: 0, or tag << 32 | row + 1, which is 1 << 32 at least; beside it
 * route_passed[bucket]: how many keys have it on their way and lie beyond. */
struct ach_route_bucket {
    __u64 slots[ACH_ROUTE_SLOTS];
};

/* route_keys[row], mmapped. */
struct ach_route_key {
    __u64 ip[2]; /* the 16 bytes as they lie in memory */
    __u64 vni;
};

/* route_values[row], mmapped. */
struct ach_route {
    __be32 vtep;
    __u8 mac[6];
    __u16 identity; /* of the receiver's security groups; 0: none that matters */
    __u64 revision;
};

struct ach_gateway_counters {
    __u64 relayed_packets;
    __u64 relayed_bytes;
    __u64 probes;
    __u64 push_window; /* the 100 ms window that push_in_window counts */
    __u64 push_in_window;
    __u64 drops[ACH_DROP_SLOTS];
};

/* UDP payload of a probe, network order. The gateway's program answers by turning the packet round.
 */
struct ach_probe {
    __be32 magic;
    __u8 version; /* 1 */
    __u8 type;    /* 1 request, 2 reply */
    __be16 reserved;
    __be32 sequence;
    __be32 heartbeat_age_ms; /* reply: since the agent last vouched for its tables; saturates */
    __be64 sent_ns;          /* the asker's clock, echoed */
};

#endif
