"""The rules of a vNIC: those of all its security groups together, groups turned into numbers."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final
from uuid import UUID

from achelous_shared.messages import SecurityRule
from achelous_vswitch.classifier import (
    ALLOW_ALL,
    ALLOW_NONE,
    MAX_IDENTITIES,
    MAX_RULES,
    Rule,
    Rules,
)

_PORT_MAX: Final = 0xFFFF

Identities = Mapping[int, tuple[UUID, ...]]
"""Number -> the security groups of those who have it, as far as rules name them; of one VPC."""


class RuleBook:
    """Rules of sets of groups; vNICs in the same groups share one result."""

    def __init__(
        self,
        groups: Mapping[UUID, tuple[SecurityRule, ...]],
        identities: Mapping[int, Identities],
        max_rules: int = MAX_RULES,
        before: "RuleBook | None" = None,
    ) -> None:
        """``identities``: by VNI. What is as it was ``before`` is the same object."""
        self._groups = groups
        self.members = {vni: _members(numbers) for vni, numbers in identities.items()}
        """By VNI: group -> numbers."""
        self._max = max_rules
        self.known: dict[tuple[int, frozenset[UUID]], tuple[Rules, Rules]] = {}
        """(in, out) of what was asked for."""
        self._before = before.known if before else {}

    def extended(
        self, groups: Mapping[UUID, tuple[SecurityRule, ...]], identities: Mapping[int, Identities]
    ) -> "RuleBook":
        """With these groups as well, and who is in the groups that their rules name, none of which
        this one has."""
        book = RuleBook({**self._groups, **groups}, identities, self._max)
        for vni, members in self.members.items():
            book.members[vni] = members | book.members.get(vni, {})
        book.known = dict(self.known)
        return book

    def of(self, vni: int, groups: frozenset[UUID]) -> tuple[Rules, Rules]:
        """(in, out). Raises ValueError with what is wrong with them."""
        key = vni, groups
        if key not in self.known:
            made, before = self._merge(vni, groups), self._before.get(key)
            self.known[key] = before if before is not None and before == made else made
        return self.known[key]

    def _merge(self, vni: int, groups: frozenset[UUID]) -> tuple[Rules, Rules]:
        if not groups:
            return ALLOW_NONE, ALLOW_ALL
        for group in groups:
            if group not in self._groups:
                raise ValueError(f"security group {group} is not in the document")
        rules = [rule for group in sorted(groups) for rule in self._groups[group]]
        for rule in rules:
            _check_rule(rule)
        inward = self._limited("inbound", vni, [rule for rule in rules if not rule.egress])
        return inward, self._limited("outbound", vni, [rule for rule in rules if rule.egress])

    def _limited(self, direction: str, vni: int, rules: list[SecurityRule]) -> Rules:
        members = self.members.get(vni, {})
        found = Rules.of((_rule(rule, members), rule.rule_id) for rule in rules)
        listed = {number for rule in found.rules for number in rule.identities or ()}
        for what, count, most in (
            (f"{direction} rules", len(found), self._max),
            (f"identities of peers in {direction} rules", len(listed), MAX_IDENTITIES),
        ):
            if count > most:
                raise ValueError(
                    f"its security groups have {count} {what}, at most {most} are possible"
                )
        return found


def _members(identities: Identities) -> dict[UUID, tuple[int, ...]]:
    """Group -> numbers of the identities that are in it, ascending."""
    found: dict[UUID, list[int]] = defaultdict(list)
    for number in sorted(identities):
        for group in identities[number]:
            found[group].append(number)
    return {group: tuple(numbers) for group, numbers in found.items()}


def _rule(rule: SecurityRule, members: Mapping[UUID, tuple[int, ...]]) -> Rule:
    group = rule.remote_group
    return Rule(
        rule.priority,
        rule.allow,
        rule.protocol,
        rule.port_min,
        rule.port_max,
        rule.remote,
        rule.remote_len,
        rule.v6_only,
        None if group is None else members.get(group, ()),
    )


def _check_rule(rule: SecurityRule) -> None:
    check("priority of a rule", rule.priority, 0, 0xFFFF)
    check("remote address of a rule", len(rule.remote), 16, 16, "bytes")
    check("prefix length of a rule's remote", rule.remote_len, 0, 128)
    check("protocol of a rule", rule.protocol, 0, 255)
    check("first port of a rule", rule.port_min, 0, rule.port_max)
    check("last port of a rule", rule.port_max, 0, _PORT_MAX)
    if rule.protocol == 0 and (rule.port_min, rule.port_max) != (0, _PORT_MAX):
        raise ValueError(
            f"ports of a rule are {rule.port_min}..{rule.port_max}, should be 0..{_PORT_MAX} with"
            " protocol 0: any"
        )


def check(what: str, value: int, least: int, most: int, unit: str = "") -> None:
    """Raise ValueError unless ``value`` lies in ``least..most``."""
    if not least <= value <= most:
        wanted = f"{least}" if least == most else f"{least}..{most}"
        raise ValueError(f"{what} is {value} {unit}".rstrip() + f", should be {wanted}")


def rule_ids(rules: Rules, places: Iterable[int]) -> list[UUID | None]:
    """The ids of the rules in these places of a set; None where there is no such rule, or none of
    the API's: what no rule matched is denied by default."""
    return [rules.ids[place] if place < len(rules.ids) else None for place in places]
