/* Which rule of a set decides about a packet: the first, in the order of evaluation, whose service,
 * remote address and identity all match.
 *
 * Each dimension is cut into intervals, sorted, with the vector of the rules that cover each. A
 * binary search finds the packet's; the lowest bit that all three vectors have is the rule. The
 * cost grows with the logarithm of the number of rules, and by one step for each 64 of them.
 *
 * Functions that are not static are verified once, for any arguments, and not for each caller. */
#ifndef VSWITCH_CLASSIFY_H
#define VSWITCH_CLASSIFY_H

#include "maps.h"
#include "ach_addr.h"

#define ACL_INTERVALS  1024 /* of a dimension: two for each of ACH_MAX_RULES at most */
#define ACL_IDENTITIES 4096 /* listed in a set */
#define ACL_WORDS      (ACH_MAX_RULES / 64)

#define ACL_UNKNOWN (-1)    /* of an identity */
#define ACL_NO_RULE 0xffffu /* of a rule: none matched, which denies */

/* Rows of vectors before those of listed identities. */
enum acl_row { ACL_OTHERS, ACL_HOPEFUL, ACL_DOUBTFUL, ACL_LISTED };

struct acl_query {
    __u32 set;      /* in: rule set id */
    __s32 identity; /* in: of the remote end, or ACL_UNKNOWN */
    __u32 service;  /* in: ACH_SERVICE */
    __u32 rule;     /* out: the place of the rule that decided, or ACL_NO_RULE */
    __u8 remote[16];
};

/* Where the vectors of one packet lie. */
struct acl_vectors {
    __u32 words; /* of each vector */
    __u32 allow;
    __u32 service;
    __u32 prefix;
};

static __always_inline __u64 acl_word(__u32 at) {
    __u64 *word = trace_plain_lookup(&acl_words, &at); /* dozens of a search */
    return word ? *word : 0;
}

/* 1 if a < b, else 0, without a branch: a search of n branches would cost the verifier 2^n paths.
 */
static __always_inline __u64 acl_below(__u64 a, __u64 b) {
    return ((~a & b) | ((~a | b) & (a - b))) >> 63;
}

/* The last of `count` words, ascending from word `at` on, that is not above the value; 0 if none
 * is. `most`: a power of two that `count` does not exceed. */
static __always_inline __u32 acl_last(__u32 at, __u32 count, __u32 most, __u32 value) {
    __u32 found = 0;
    for (__u32 step = most / 2; step; step >>= 1) {
        __u32 probe = found + step;
        __u64 fits = acl_below(probe, count) & (acl_below(value, acl_word(at + probe)) ^ 1);
        found += step & -fits;
    }
    return found;
}

__noinline __u32 acl_service_interval(__u32 at, __u32 count, __u32 service) {
    return acl_last(at, count, ACL_INTERVALS, service);
}

static __always_inline __u64 acl_half(const __u8 *ip, int half) {
    const ach_word *words = ach_words(ip);
    return (__u64)bpf_ntohl(words[2 * half]) << 32 | bpf_ntohl(words[2 * half + 1]);
}

/* The last of `count` starts at word `at` that is not above the address. */
__noinline __u32 acl_prefix_interval(__u32 at, __u32 count, const struct acl_query *query) {
    if (!query)
        return 0;
    __u64 high = acl_half(query->remote, 0), low = acl_half(query->remote, 1);
    __u32 found = 0;
    for (__u32 step = ACL_INTERVALS / 2; step; step >>= 1) {
        __u32 probe = found + step;
        __u64 upper = acl_word(at + 2 * probe), lower = acl_word(at + 2 * probe + 1);
        __u64 above = acl_below(high, upper) | (acl_below(low, lower) & ~acl_below(upper, high));
        found += step & -(acl_below(probe, count) & ~above);
    }
    return found;
}

/* The row of an identity, listed or not. */
__noinline __u32 acl_identity_row(__u32 at, __u32 count, __u32 identity) {
    __u32 found = acl_last(at, count, ACL_IDENTITIES, identity);
    return count && acl_word(at + found) == identity ? ACL_LISTED + found : ACL_OTHERS;
}

/* The place of a bit, by the upper six bits of its product with a De Bruijn sequence. (clang-16 has
 * no ctz for BPF, and shifts and branches cost the verifier a path for each place.) */
#define ACL_DE_BRUIJN 0x03f79d71b4cb0a89ull
static const __u8 acl_places[64] = {
    0,  1,  48, 2,  57, 49, 28, 3,  61, 58, 50, 42, 38, 29, 17, 4,  62, 55, 59, 36, 53, 51,
    43, 22, 45, 39, 33, 30, 24, 18, 12, 5,  63, 47, 56, 27, 60, 41, 37, 16, 54, 35, 52, 21,
    44, 32, 23, 11, 46, 26, 40, 15, 34, 20, 31, 10, 25, 14, 19, 9,  13, 8,  7,  6,
};

static __always_inline __u32 acl_place(__u64 bit) {
    return acl_places[bit * ACL_DE_BRUIJN >> 58];
}

/* The place of the first rule that all vectors have, | ACL_ALLOWED if it allows. */
#define ACL_ALLOWED 0x10000u
__noinline __u32 acl_first(const struct acl_vectors *vectors, __u32 identity) {
    if (!vectors)
        return ACL_NO_RULE;
    for (__u32 i = 0; i < ACL_WORDS; i++) {
        if (i >= vectors->words)
            break;
        __u64 match = acl_word(vectors->service + i) & acl_word(vectors->prefix + i);
        if (match)
            match &= acl_word(identity + i);
        if (!match)
            continue;
        __u64 lowest = match & -match;
        __u32 place = i * 64 + acl_place(lowest);
        return acl_word(vectors->allow + i) & lowest ? place | ACL_ALLOWED : place;
    }
    return ACL_NO_RULE;
}

/* Returns 0, or the negative of a drop reason: `denied`, or IDENTITY_UNKNOWN where a rule that
 * names a group decides and the identity is not known. */
__noinline int acl_classify(struct acl_query *query, int denied) {
    if (!query)
        return denied;
    query->rule = ACL_NO_RULE;
    const struct ach_ruleset *set = bpf_map_lookup_elem(&acl_sets, &query->set);
    if (!set)
        return denied;
    __u32 prefixes = set->at + set->services;
    __u32 identities = prefixes + 2 * set->prefixes;
    struct acl_vectors vectors = {
        .words = (set->rules + 63) / 64,
        .allow = identities + set->identities,
    };
    __u32 first = vectors.allow + vectors.words;
    __u32 at = acl_service_interval(set->at, set->services, query->service);
    vectors.service = first + at * vectors.words;
    first += set->services * vectors.words;
    at = acl_prefix_interval(prefixes, set->prefixes, query);
    vectors.prefix = first + at * vectors.words;
    first += set->prefixes * vectors.words;
    __u32 row = ACL_OTHERS;
    if (set->groups)
        row = query->identity < 0 ? ACL_HOPEFUL
                                  : acl_identity_row(identities, set->identities, query->identity);
    __u32 decided = acl_first(&vectors, first + row * vectors.words);
    query->rule = decided & ~ACL_ALLOWED;
    if (!(decided & ACL_ALLOWED))
        return denied;
    if (row != ACL_HOPEFUL)
        return 0;
    decided = acl_first(&vectors, first + ACL_DOUBTFUL * vectors.words);
    return decided & ACL_ALLOWED ? 0 : -ACH_DROP_IDENTITY_UNKNOWN;
}

#endif
