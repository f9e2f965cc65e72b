/* Addresses of 16 bytes (IPv4 mapped), MACs, and the hash of a destination.
 *
 * Words are compared one by one: addresses lie on 4-byte boundaries in every layout, and the
 * verifier refuses wider loads from the stack. */
#ifndef ACH_ADDR_H
#define ACH_ADDR_H

#include "ach_kernel.h"
#include "ach_layout.h"

typedef __u32 __attribute__((may_alias)) ach_word;
typedef __u16 __attribute__((may_alias)) ach_half;

/* The four words of an address, each a __be32. */
static __always_inline ach_word *ach_words(const __u8 *ip) {
    return (ach_word *)ip;
}

static __always_inline void ach_map_ipv4(__u8 *ip, __be32 addr) {
    ach_words(ip)[0] = 0;
    ach_words(ip)[1] = 0;
    ach_words(ip)[2] = bpf_htonl(0xffff);
    ach_words(ip)[3] = addr;
}

static __always_inline void ach_copy_ip(__u8 *to, const __u8 *from) {
    for (int i = 0; i < 4; i++)
        ach_words(to)[i] = ach_words(from)[i];
}

static __always_inline bool ach_same_ip(const __u8 *a, const __u8 *b) {
    __u32 differ = 0;
    for (int i = 0; i < 4; i++)
        differ |= ach_words(a)[i] ^ ach_words(b)[i];
    return !differ;
}

/* As memcmp: below, equal to or above 0. */
static __always_inline int ach_compare_ip(const __u8 *a, const __u8 *b) {
    for (int i = 0; i < 4; i++) {
        __u32 x = bpf_ntohl(ach_words(a)[i]), y = bpf_ntohl(ach_words(b)[i]);
        if (x != y)
            return x < y ? -1 : 1;
    }
    return 0;
}

/* The mask of word `i` of a prefix of `length` bits, 0..128. */
static __always_inline __be32 ach_prefix_word(__u32 length, int i) {
    __s32 bits = (__s32)length - 32 * i;
    if (bits <= 0)
        return 0;
    return bits >= 32 ? ~0u : bpf_htonl(~0u << (32 - bits));
}

static __always_inline bool ach_in_prefix(const __u8 *ip, const __u8 *prefix, __u32 length) {
    __u32 differ = 0;
    for (int i = 0; i < 4; i++)
        differ |= (ach_words(ip)[i] ^ ach_words(prefix)[i]) & ach_prefix_word(length, i);
    return !differ;
}

/* IPv4: 224.0.0.0/4, the limited broadcast and what is above them. */
static __always_inline bool ach_is_multicast(__be32 addr) {
    return (addr & bpf_htonl(0xe0000000)) == bpf_htonl(0xe0000000);
}

static __always_inline bool ach_is_multicast6(const __u8 *ip) {
    return ip[0] == 0xff;
}

/* fe80::/10 */
static __always_inline bool ach_is_link_local6(const __u8 *ip) {
    return (ach_words(ip)[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/* An IPv6 address of ::/64: unspecified, loopback, or IPv4 mapped, which in a key would name an
 * IPv4 address. No packet carries one from guest to guest. */
static __always_inline bool ach_is_reserved6(const __u8 *ip) {
    return !(ach_words(ip)[0] | ach_words(ip)[1]);
}

/* The last address of an IPv4 subnet, except of /31 and /32, which have no broadcast address. */
static __always_inline bool ach_is_broadcast(const __u8 *ip, const __u8 *member, __u32 length) {
    return length < 127 && ach_in_prefix(ip, member, length) &&
           !~(ach_words(ip)[3] | ach_prefix_word(length, 3));
}

static __always_inline bool ach_same_mac(const __u8 *a, const __u8 *b) {
    const ach_half *x = (const ach_half *)a, *y = (const ach_half *)b;
    return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]));
}

static __always_inline void ach_copy_mac(__u8 *to, const __u8 *from) {
    for (int i = 0; i < 3; i++)
        ((ach_half *)to)[i] = ((const ach_half *)from)[i];
}

/* 32 bits of (vni, address), the same on every host, in every language: multiply and shift over
 * the VNI and the address's four words as big-endian numbers, then the finaliser of MurmurHash3
 * (its constants), so that the low bits depend on all of them. */
static __always_inline __u32 ach_hash(const struct ach_vni_ip *key) {
    __u32 hash = key->vni * 0x9e3779b1u;
    for (int i = 0; i < 4; i++) {
        hash = (hash ^ bpf_ntohl(ach_words(key->ip)[i])) * 0x9e3779b1u;
        hash ^= hash >> 15;
    }
    hash = (hash ^ hash >> 16) * 0x85ebca6bu;
    hash = (hash ^ hash >> 13) * 0xc2b2ae35u;
    return hash ^ hash >> 16;
}

#endif
