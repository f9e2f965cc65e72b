"""The words of a classifier, read as the packet path does, find the first rule that matches."""

from bisect import bisect_right
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from achelous_shared.messages import SecurityRule
from achelous_shared.routes import ip_bytes
from achelous_vswitch.classifier import ALLOW_ALL, Classifier, Rule, Rules, compile_rules, digest
from achelous_vswitch.rule_book import RuleBook, rule_ids

ADDRESSES = [
    int.from_bytes(ip_bytes(text))
    for text in ("9.0.0.0", "10.0.0.1", "255.255.255.255", "::", "2001:db8::1", "::1:0:0:0")
]  # fmt: skip
WEB, DB = UUID(int=1), UUID(int=2)

rules = st.builds(
    Rule,
    priority=st.sampled_from((0, 1000, 65535)),
    allow=st.booleans(),
    protocol=st.sampled_from((0, 6)),
    first=st.just(0),
    last=st.just(0xFFFF),
    remote=st.sampled_from(ADDRESSES).map(lambda address: address.to_bytes(16)),
    remote_len=st.sampled_from((0, 1, 8, 64, 80, 96, 104, 128)),
    v6_only=st.booleans(),
    identities=st.none(),
)


class Reader:
    """The slow way through the words, by `ach_ruleset`."""

    def __init__(self, compiled: Classifier) -> None:
        words = [int(word) for word in compiled.words]
        counts = compiled.counts
        self.size = -(-counts["rules"] // 64)
        self.services = self._take(words, counts["services"])
        halves = self._take(words, 2 * counts["prefixes"])
        self.prefixes = [a << 64 | b for a, b in zip(halves[::2], halves[1::2], strict=True)]
        self.identities = self._take(words, counts["identities"])
        self.allow = self._vectors(words, 1)[0]
        self.by_service = self._vectors(words, counts["services"])
        self.by_prefix = self._vectors(words, counts["prefixes"])
        self.by_identity = self._vectors(words, 3 + counts["identities"])
        assert not words

    @staticmethod
    def _take(words: list[int], count: int) -> list[int]:
        taken = words[:count]
        del words[:count]
        return taken

    def _vectors(self, words: list[int], count: int) -> list[int]:
        parts = self._take(words, count * self.size)
        return [
            sum(word << 64 * place for place, word in enumerate(parts[at : at + self.size]))
            for at in range(0, len(parts), self.size)
        ]

    def first(self, protocol: int, port: int, address: int, identity: int = 0) -> int | None:
        """The place of the rule that decides."""
        row = self.identities.index(identity) + 3 if identity in self.identities else 0
        match = (
            self.by_service[bisect_right(self.services, protocol << 16 | port) - 1]
            & self.by_prefix[bisect_right(self.prefixes, address) - 1]
            & self.by_identity[row]
        )
        return (match & -match).bit_length() - 1 if match else None


def covers(rule: Rule, address: int) -> bool:
    shift = 128 - rule.remote_len
    if rule.v6_only and address >> 32 == 0xFFFF:
        return False
    return address >> shift == int.from_bytes(rule.remote) >> shift


@given(
    st.lists(rules, min_size=1, max_size=90),
    st.sampled_from(ADDRESSES) | st.integers(0, (1 << 128) - 1),
)
def test_addresses_of_both_families_meet_the_first_rule_that_covers_them(
    found: list[Rule], address: int
) -> None:
    ordered = Rules.of((rule, None) for rule in found)
    expected = [
        place
        for place, rule in enumerate(ordered.rules)
        if covers(rule, address) and rule.protocol in (0, 6)
    ]
    place = Reader(compile_rules(ordered)).first(6, 80, address)
    assert place == (expected[0] if expected else None)


def test_a_protocol_without_ports_matches_whatever_ports_a_rule_has() -> None:
    esp = Rules.of([(Rule(0, True, 50, 7, 9, bytes(16), 0), None)])
    assert Reader(compile_rules(esp)).first(50, 0, 1) == 0


def test_deny_stands_before_allow_of_the_same_priority_and_lower_numbers_before_both() -> None:
    allow = Rule(1000, True, 6, 0, 9, bytes(16), 0)
    deny, early = allow._replace(allow=False), allow._replace(priority=999)
    assert Rules.of((rule, None) for rule in (allow, deny, early)).rules == (early, deny, allow)


def test_equal_rules_are_known_by_their_digest_whatever_their_ids() -> None:
    rule = Rule(1000, True, 6, 0, 9, bytes(16), 0)
    assert digest(Rules.of([(rule, WEB)])) == digest(Rules.of([(rule, DB), (rule, WEB)]))
    assert digest(Rules.of([(rule, WEB)])) != digest(ALLOW_ALL)


# ---- groups in numbers -------------------------------------------------------------------------


def rule(**more: object) -> SecurityRule:
    base = {"egress": False, "protocol": 6, "port_min": 1, "port_max": 1}
    return SecurityRule(**base | {"remote": bytes(16), "remote_len": 0} | more)  # type: ignore[arg-type]


def test_a_rule_that_names_a_group_matches_the_numbers_of_its_members() -> None:
    book = RuleBook({DB: (rule(remote_group=WEB),)}, {7: {3: (WEB,), 9: (DB,), 12: (DB, WEB)}})
    inward, outward = book.of(7, frozenset({DB}))
    assert [found.identities for found in inward.rules] == [(3, 12)]
    assert not outward.rules
    (other_vpc, _) = book.of(8, frozenset({DB}))
    assert [found.identities for found in other_vpc.rules] == [()]


def test_the_rule_in_a_place_is_known_by_its_id() -> None:
    ids = [UUID(int=n) for n in (10, 11)]
    group = (rule(rule_id=ids[0]), rule(rule_id=ids[1], allow=False))
    inward, _ = RuleBook({DB: group}, {}).of(7, frozenset({DB}))
    assert rule_ids(inward, [0, 1, 0xFFFF]) == [ids[1], ids[0], None]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"priority": 1 << 16}, "priority of a rule is 65536, should be 0..65535"),
        ({"protocol": 0}, "ports of a rule are 1..1, should be 0..65535 with protocol 0: any"),
        ({"port_max": 0}, "first port of a rule is 1, should be 0"),
        ({"remote": b""}, "remote address of a rule is 0 bytes, should be 16"),
    ],
)
def test_a_rule_with_bad_values_says_why(wrong: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        RuleBook({DB: (rule(**wrong),)}, {}).of(7, frozenset({DB}))


def test_more_identities_than_a_set_can_tell_apart_are_refused() -> None:
    members = dict.fromkeys(range(1, 4098), (WEB,))
    with pytest.raises(ValueError, match="4097 identities of peers in inbound rules, at most 4096"):
        RuleBook({DB: (rule(remote_group=WEB),)}, {7: members}).of(7, frozenset({DB}))
