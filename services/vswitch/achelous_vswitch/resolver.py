"""What a host shall run, from its documents as they come: whole, or what changed since the whole.

The rules of a vNIC are those of all its security groups, taken literally: what no rule allows is
denied. A vNIC in no group at all may send anything and receive only answers.
"""

from collections.abc import Mapping
from uuid import UUID

from achelous_shared.host_documents import HostReader, assemble, merge_preprogrammed
from achelous_shared.messages import HostChanges, HostDocument, SecurityRule
from achelous_vswitch.checked import CheckedPorts
from achelous_vswitch.classifier import MAX_RULES
from achelous_vswitch.plan import Desired
from achelous_vswitch.rule_book import RuleBook


class Resolver:
    """Follows the documents of one host. A port that did not change stays the same object."""

    def __init__(self, *, max_ports: int, max_rules: int = MAX_RULES) -> None:
        self._max_ports = max_ports
        self._max_rules = max_rules
        self._reader = HostReader()
        self._whole: CheckedPorts | None = None
        """Of the last whole document, once changes came to it or it is what runs."""
        self._newest: CheckedPorts | None = None
        self._revision = 0
        self._extended: tuple[HostChanges, RuleBook] | None = None

    def take(self, message: HostDocument | HostChanges) -> Desired | None:
        """What to run now; None if this changes nothing: it is older than what runs, or changes
        since a document that is not here."""
        if not self._reader.take(message):
            return None
        if isinstance(message, HostDocument):
            self._whole = self._extended = None
        if self._newest is not None and message.revision < self._revision:
            return None
        if isinstance(message, HostDocument):
            checked, preprogrammed = self._checked_whole(message), set(message.preprogrammed)
        else:
            checked, preprogrammed = self._changed(message)
        self._newest, self._revision = checked, message.revision
        return checked.desired(message.revision, preprogrammed)

    def _checked_whole(self, document: HostDocument) -> CheckedPorts:
        if self._whole is None:
            self._whole = self._check(document)
        return self._whole

    def _check(self, document: HostDocument) -> CheckedPorts:
        """Every port of it."""
        before = self._newest.rules if self._newest else None
        rules = RuleBook(document.security_groups, document.identities, self._max_rules, before)
        checked = CheckedPorts(rules, self._max_ports, self._newest)
        for port in document.ports:
            checked.add(port)
        return checked

    def _changed(self, changes: HostChanges) -> tuple[CheckedPorts, set[int]]:
        """The whole with these changes, and its preprogrammed VNIs.

        Ports that are as in the whole are not looked at, unless one could not run: then it is a
        matter of order which of them can.
        """
        document = self._reader.whole
        if document is None:
            raise LookupError("changes were taken without the document that they stand on")
        preprogrammed = merge_preprogrammed(document.preprogrammed, changes)
        whole = self._checked_whole(document)
        if not whole.failed and not _overlap(document.security_groups, changes.security_groups):
            left = (*changes.gone, *(port.vnic_id for port in changes.ports))
            checked = whole.without(left, self._rules(whole, changes), self._newest or whole)
            for port in changes.ports:
                checked.add(port)
            if not checked.failed:
                return checked, preprogrammed
        return self._check(assemble(document, changes)), preprogrammed

    def _rules(self, whole: CheckedPorts, changes: HostChanges) -> RuleBook:
        if not changes.security_groups:
            return whole.rules
        if self._extended is not None:
            before, rules = self._extended
            if (before.security_groups, before.identities) == (
                changes.security_groups, changes.identities,
            ):  # fmt: skip
                return rules
        rules = whole.rules.extended(changes.security_groups, changes.identities)
        self._extended = changes, rules
        return rules


def _overlap(
    whole: Mapping[UUID, tuple[SecurityRule, ...]], new: Mapping[UUID, tuple[SecurityRule, ...]]
) -> bool:
    """Whether these groups, or groups that their rules name, are in the whole document as well."""
    if not new:
        return False
    return not new.keys().isdisjoint(whole) or not _named(new).isdisjoint(_named(whole))


def _named(groups: Mapping[UUID, tuple[SecurityRule, ...]]) -> set[UUID]:
    return {
        rule.remote_group for rules in groups.values() for rule in rules
        if rule.remote_group is not None
    }  # fmt: skip
