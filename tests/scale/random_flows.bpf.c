/* Gives each run a flow of its own, so that one test-run can repeat over many flows. */
#include "ach_kernel.h"

#define PORTS_AT 34 /* Ethernet 14, IPv4 20: source port, destination port */

const volatile __u32 flows = 1; /* at most 60,000 source ports for each destination port */
const volatile bool forward = true;

struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} next SEC(".maps");

SEC("tc")
int random_flow(struct __sk_buff *skb) {
    __u8 *data = (void *)(long)skb->data;
    if (data + PORTS_AT + 4 > (__u8 *)(long)skb->data_end)
        return 2;
    __u32 number = bpf_get_prandom_u32() % flows;
    *(__be16 *)(data + PORTS_AT) = bpf_htons(1024 + number % 60000);
    *(__be16 *)(data + PORTS_AT + 2) = bpf_htons(3000 + number / 60000);
    if (forward)
        bpf_tail_call(skb, &next, 0);
    return 2;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
