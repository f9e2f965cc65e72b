/* The programs behind `services`: tail calls of from_guest, each with the one exit of its own. */
#ifndef VSWITCH_ANSWERS_H
#define VSWITCH_ANSWERS_H

#include "dhcp4.h"
#include "dhcp6.h"
#include "ra.h"

SEC("tc")
int answer_dhcp4(struct __sk_buff *skb) {
    struct reply reply = {};
    int error = reply_open(skb, &reply);
    return finish(skb, error ? error : dhcp4_answer(&reply), reply.slot);
}

SEC("tc")
int answer_dhcp6(struct __sk_buff *skb) {
    struct reply reply = {};
    int error = reply_open(skb, &reply);
    return finish(skb, error ? error : dhcp6_answer(&reply), reply.slot);
}

SEC("tc")
int answer_router(struct __sk_buff *skb) {
    struct reply reply = {};
    int error = reply_open(skb, &reply);
    return finish(skb, error ? error : router_answer(&reply), reply.slot);
}

#endif
