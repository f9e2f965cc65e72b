"""Security-group rules, one by one in the order of evaluation (decision 0009)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network

from model.wire import ICMP, ICMPV6, TCP, UDP, Address


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `details`: destination ports, or ICMP type << 8 | code; protocol 0 is any.

    `identities`: the numbers of those in the group that it names; None: it names none.
    """

    remote: IPv4Network | IPv6Network
    protocol: int = 0
    details: tuple[int, int] = (0, 65535)
    allow: bool = True
    priority: int = 100
    identities: frozenset[int] | None = None


class Ruling(Enum):
    """What rules say; UNKNOWN: it depends on a group that is not known."""

    ALLOW = 1
    DENY = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class Question:
    """What the first packet of a session asks for. `identity` None: not known."""

    protocol: int
    detail: int
    remote: Address
    identity: int | None


def _covers(rule: Rule, question: Question) -> bool:
    """All but its group."""
    if rule.protocol not in (0, question.protocol):
        return False
    detailed = rule.protocol in (ICMP, TCP, UDP, ICMPV6)  # others have neither ports nor types
    if detailed and not rule.details[0] <= question.detail <= rule.details[1]:
        return False
    return question.remote.version == rule.remote.version and question.remote in rule.remote


def _first(rules: Iterable[Rule], in_group: Callable[[Rule], bool]) -> bool:
    """Whether the first rule whose group fits allows."""
    for rule in sorted(rules, key=lambda rule: (rule.priority, rule.allow)):
        if rule.identities is None or in_group(rule):
            return rule.allow
    return False


def decide(rules: Iterable[Rule], question: Question) -> Ruling:
    """The lowest priority number decides, deny before allow; nothing that matches is a no."""
    covering = [rule for rule in rules if _covers(rule, question)]
    identity = question.identity
    if identity is not None:
        allowed = _first(covering, lambda rule: identity in (rule.identities or ()))
        return Ruling.ALLOW if allowed else Ruling.DENY
    if not _first(covering, lambda rule: rule.allow):
        return Ruling.DENY
    return Ruling.ALLOW if _first(covering, lambda rule: not rule.allow) else Ruling.UNKNOWN
