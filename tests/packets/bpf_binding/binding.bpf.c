// The program under test of the Python binding: one map of each kind, and the awkward layouts.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#ifndef TEST_VERDICT
#define TEST_VERDICT 0
#endif
#ifndef TEST_ROUTES
#define TEST_ROUTES 262144
#endif

enum bt_color { BT_RED, BT_GREEN = 5, BT_BLUE };
enum bt_signed { BT_BELOW = -1, BT_ABOVE = 1 };
enum bt_wide { BT_WIDE = 1ULL << 40 };

struct bt_inner {
    __u8 tag;
    __u32 number; // three bytes of padding before it
};

struct bt_layout {
    __u8 addr[16];
    __be16 port;
    __be32 peer;
    struct bt_inner inner[2];
    union {
        __u64 wide;
        __u32 narrow;
    };
    union {
        __u8 byte;
        __u32 word;
    } named;
    struct {
        __s16 below;
        bool yes;
    };
    enum bt_color color;
    __u16 grid[2][3];
    struct bpf_spin_lock lock;
    __u8 last; // trailing padding
};

struct bt_key {
    __u8 ip[16];
    __u32 vni;
};

struct bt_value {
    __u64 counter;
    __be32 next_hop;
    __u32 generation;
    __u64 stamp;
};

struct bt_port { // 12 bytes: the kernel gives it 16 in a mmapped array
    __u32 vni;
    __u32 packets;
    __u32 bytes;
};

struct bt_counter { // 12 bytes, 16 per CPU
    __u32 packets;
    __u32 bytes;
    __u32 cpu;
};

struct bt_bits {
    __u32 whole;
    __u32 low : 4, high : 28;
};

typedef __u8 bt_label[16];

struct bt_event {
    __u32 number;
    __be32 peer;
    __u16 length;
    __u8 more[7];
};

const enum bt_signed *bt_signed_btf __attribute__((unused));
const enum bt_wide *bt_wide_btf __attribute__((unused));
const struct bt_bits *bt_bits_btf __attribute__((unused));
const struct bt_event *bt_event_btf __attribute__((unused));
const struct bt_layout *bt_layout_btf __attribute__((unused));

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, struct bt_key);
    __type(value, struct bt_value);
    __uint(max_entries, TEST_ROUTES);
} routes SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, 1024);
} recently_used_flows SEC(".maps"); // longer than the 15 characters that the kernel keeps

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __type(key, __u32);
    __type(value, struct bt_port);
    __uint(max_entries, 1000);
} ports SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __type(key, __u32);
    __type(value, struct bt_counter);
    __uint(max_entries, 8);
} counters SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_HASH);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, 8);
} sums SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, __u32);
    __type(value, bt_label);
    __uint(max_entries, 4);
} labels SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 16384);
} events SEC(".maps");

// C's own account of the layout.
#define AT(member) __builtin_offsetof(struct bt_layout, member)
const volatile __u32 layout[] = {
    AT(addr),  AT(port), AT(peer),  AT(inner), AT(wide), AT(named),
    AT(below), AT(yes),  AT(color), AT(grid),  AT(lock), AT(last),
};
const volatile __u32 layout_size = sizeof(struct bt_layout);

const volatile __u32 add = 1; // set by the loader
const volatile __be16 vxlan_port = 0;
const volatile __u8 own_mac[6] = {};

__u64 runs = 0; // .bss

SEC("tc")
int count(struct __sk_buff *skb) {
    __u32 slot = skb->ifindex & 7;
    struct bt_counter *counter = bpf_map_lookup_elem(&counters, &slot);
    if (counter) {
        counter->packets += add;
        counter->bytes += skb->len;
        counter->cpu = bpf_get_smp_processor_id();
    }
    __u64 one = 1;
    __u64 *sum = bpf_map_lookup_elem(&sums, &slot);
    if (sum)
        *sum += 1;
    else
        bpf_map_update_elem(&sums, &slot, &one, BPF_ANY);
    struct bt_port *port = bpf_map_lookup_elem(&ports, &slot);
    if (port)
        port->packets++;
    __sync_fetch_and_add(&runs, 1);
    skb->mark = vxlan_port;
    skb->priority = skb->ingress_ifindex + own_mac[5];
    return TEST_VERDICT;
}

static long emit_one(__u32 i, __u32 *length) {
    struct bt_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
    if (!event)
        return 1;
    event->number = i;
    event->peer = bpf_htonl(0xc0a80201); // 192.168.2.1
    event->length = *length;
    if (i % 3 == 2)
        bpf_ringbuf_discard(event, 0);
    else
        bpf_ringbuf_submit(event, 0);
    return 0;
}

// Emits skb->mark events; every third is discarded. Returns how many the ring had room for.
SEC("tc")
int emit(struct __sk_buff *skb) {
    __u32 length = skb->len;
    return bpf_loop(skb->mark, emit_one, &length, 0);
}

SEC("tc")
int encapsulate(struct __sk_buff *skb) {
    return bpf_skb_adjust_room(skb, 50, BPF_ADJ_ROOM_MAC,
                               BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP);
}

#ifdef TEST_REFUSED
SEC("tc")
int refused(struct __sk_buff *skb) {
    __u32 slot = 0;
    __u64 *last = bpf_map_lookup_elem(&recently_used_flows, &slot);
    return *last; // not checked for NULL
}
#endif

char LICENSE[] SEC("license") = "GPL";
