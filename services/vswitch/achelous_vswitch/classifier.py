"""Rules of one direction of a vNIC, and the classifier that finds the first that matches.

Pure: what C's ``ach_ruleset`` says of the words, in numpy. The compiled form is a few words for
each rule and vectors of one bit per rule; what the rules were only a digest of them tells.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, NamedTuple
from uuid import UUID

import numpy as np
import numpy.typing as npt

MAX_RULES: Final = 500
"""Of one direction of one vNIC; C's ACH_MAX_RULES is the next multiple of 64."""

MAX_IDENTITIES: Final = 4096
"""Numbers that the rules of one set can tell apart: C's ACL_IDENTITIES."""

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
WITH_DETAIL: Final = (ICMP, TCP, UDP, ICMPV6)
"""Protocols whose packets have a port or an ICMP type and code; of others the detail is 0."""

_ANY_DETAIL: Final = 0xFFFF
_SERVICES: Final = 1 << 24
_ADDRESSES: Final = 1 << 128
_MAPPED: Final = (0xFFFF << 32, 1 << 48)
"""The addresses of IPv4, as a range."""

Words = npt.NDArray[np.uint64]
Bits = npt.NDArray[np.bool_]


class Rule(NamedTuple):
    """A rule of one direction. Rules sort in the order of evaluation: deny before allow."""

    priority: int
    allow: bool
    protocol: int
    """0: any, with every detail."""
    first: int
    """Of the destination ports, or of ICMP type << 8 | code, that it covers."""
    last: int
    remote: bytes
    remote_len: int
    v6_only: bool = False
    """The prefix does not cover IPv4-mapped addresses."""
    identities: tuple[int, ...] | None = None
    """Ascending: of remote ends that are in the group which the rule names. None: it names none."""


def _order(rule: Rule) -> tuple[Any, ...]:
    named = rule.identities is not None
    return (*rule[:8], named, rule.identities or ())  # False sorts first: deny before allow


@dataclass(frozen=True, slots=True)
class Rules:
    """Distinct rules in the order of evaluation, and where each comes from (n,)."""

    rules: tuple[Rule, ...] = ()
    ids: tuple[UUID | None, ...] = ()

    @classmethod
    def of(cls, rules: Iterable[tuple[Rule, UUID | None]]) -> "Rules":
        """From rules with their ids in any order; of equal rules the first id stands."""
        found: dict[Rule, UUID | None] = {}
        for rule, rule_id in rules:
            found.setdefault(rule, rule_id)
        ordered = tuple(sorted(found, key=_order))
        return cls(ordered, tuple(found[rule] for rule in ordered))

    def __len__(self) -> int:
        return len(self.rules)


ALLOW_ALL: Final = Rules.of([(Rule(0, True, 0, 0, _ANY_DETAIL, bytes(16), 0), None)])
ALLOW_NONE: Final = Rules()
ADOPTED: Final = Rules((), (UUID(int=0),))
"""Of a port that an agent before this one wrote: like no rules that a document can ask for."""


@dataclass(frozen=True, slots=True)
class Classifier:
    """The words of ``acl_words`` from ``at`` on, and the counts of ``ach_ruleset``."""

    words: Words
    counts: Mapping[str, int]
    digest: bytes
    """16 bytes."""


def digest(rules: Rules) -> bytes:
    """16 bytes that stand for the rules, whatever their ids."""
    return blake2b(repr([tuple(rule) for rule in rules.rules]).encode(), digest_size=16).digest()


def compile_rules(rules: Rules) -> Classifier:
    """The classifier of 1 to `MAX_RULES` rules that name at most `MAX_IDENTITIES` identities."""
    found = rules.rules
    services, by_service = _intervals([_service(rule) for rule in found], _SERVICES)
    prefixes, by_prefix = _intervals([_addresses(rule) for rule in found], _ADDRESSES)
    if any(rule.v6_only for rule in found):
        by_prefix &= ~_mapped_holes(found, prefixes)
    identities, by_identity = _identities(found)
    allow = np.array([[rule.allow for rule in found]])
    vectors = [_vectors(part) for part in (allow, by_service, by_prefix, by_identity)]
    halves = [half for start in prefixes for half in (start >> 64, start & (1 << 64) - 1)]
    starts = np.array([*services, *halves, *identities], np.uint64)
    return Classifier(
        np.concatenate((starts, *(part.reshape(-1) for part in vectors))),
        {
            "rules": len(found),
            "services": len(services),
            "prefixes": len(prefixes),
            "identities": len(identities),
            "groups": sum(rule.identities is not None for rule in found),
        },
        digest(rules),
    )


def _service(rule: Rule) -> tuple[int, int]:
    """The half-open range of C's ACH_SERVICE keys that the rule covers."""
    if rule.protocol == 0:
        return 0, _SERVICES
    base = rule.protocol << 16
    if rule.protocol not in WITH_DETAIL:
        return base, base + _ANY_DETAIL + 1
    return base + rule.first, base + rule.last + 1


def _addresses(rule: Rule) -> tuple[int, int]:
    size = 1 << (128 - rule.remote_len)
    start = int.from_bytes(rule.remote) & -size
    return start, start + size


def _intervals(ranges: list[tuple[int, int]], end: int) -> tuple[list[int], Bits]:
    """Starts (m,) of the intervals that the bounds of half-open ranges (n,) cut, and which of the
    ranges cover each interval (m, n)."""
    cuts = {0, *(bound for pair in ranges for bound in pair)} - {end}
    if end == _ADDRESSES:
        cuts |= set(_MAPPED)
    starts = sorted(cuts)
    place = {start: index for index, start in enumerate(starts)} | {end: len(starts)}
    bounds = np.array([[place[first], place[after]] for first, after in ranges])
    at = np.arange(len(starts))[:, None]
    return starts, np.asarray((bounds[:, 0] <= at) & (at < bounds[:, 1]))


def _mapped_holes(rules: tuple[Rule, ...], starts: list[int]) -> Bits:
    """(m, n): intervals of IPv4 addresses, of rules for IPv6 alone."""
    first, after = _MAPPED
    mapped = np.array([first <= start < after for start in starts])
    return np.asarray(mapped[:, None] & np.array([rule.v6_only for rule in rules]))


def _identities(rules: tuple[Rule, ...]) -> tuple[list[int], Bits]:
    """Numbers (m,), and which rules match (3 + m, n): C's acl_row."""
    listed = sorted({number for rule in rules for number in rule.identities or ()})
    named = np.array([rule.identities is not None for rule in rules])
    allow = np.array([rule.allow for rule in rules])
    matches = np.zeros((3 + len(listed), len(rules)), np.bool_)
    matches[:] = ~named
    matches[1] |= named & allow
    matches[2] |= named & ~allow
    for column, rule in enumerate(rules):
        if rule.identities:
            matches[3 + np.searchsorted(listed, rule.identities), column] = True
    return listed, matches


def _vectors(bits: Bits) -> Words:
    """(m, n) bits as (m, words) with bit i of a vector in place i."""
    padded = np.zeros((len(bits), -(-bits.shape[1] // 64) * 64), np.bool_)
    padded[:, : bits.shape[1]] = bits
    packed = np.packbits(padded, axis=1, bitorder="little")
    return np.ascontiguousarray(packed).view("<u8").astype(np.uint64)
