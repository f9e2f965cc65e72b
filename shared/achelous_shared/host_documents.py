"""A host's document from the whole that was published last and what changed since: pure."""

from collections.abc import Collection, Mapping
from uuid import UUID

from achelous_shared.messages import HostChanges, HostDocument, SecurityRule

Groups = Mapping[UUID, tuple[SecurityRule, ...]]
"""Rules of security groups."""

Identities = Mapping[int, Mapping[int, tuple[UUID, ...]]]
"""Of each VNI: number of a set of security groups -> those of them that rules name."""


class HostReader:
    """Takes what comes on a host's subjects, in the order of the stream or any other.

    Whoever begins to follow gets the last whole document and the last changes; a stream's order
    puts changes behind the whole that they stand on, so those that stand on another are old, or
    stand on one that did not last. Neither holds anything that is not published again.
    """

    def __init__(self) -> None:
        self.whole: HostDocument | None = None
        self.changes: HostChanges | None = None
        """What makes ``whole`` the newest state."""

    @property
    def revision(self) -> int:
        """Of the newest state; 0: there is none."""
        newest = self.changes or self.whole
        return newest.revision if newest else 0

    def take(self, message: HostDocument | HostChanges) -> bool:
        """Whether the state is now that of this message."""
        if isinstance(message, HostDocument):
            self.whole, self.changes = message, None
            return True
        stands = self.whole is not None and message.base == self.whole.revision
        if not stands or message.revision < self.revision:
            return False
        self.changes = message
        return True

    def document(self) -> HostDocument | None:
        """The newest state."""
        if self.whole is None or self.changes is None:
            return self.whole
        return assemble(self.whole, self.changes)


def assemble(whole: HostDocument, changes: HostChanges) -> HostDocument:
    """The document of ``changes.revision``; raises ValueError if they stand on another one."""
    if changes.base != whole.revision:
        raise ValueError(f"changes since {changes.base}, the document is of {whole.revision}")
    left = {*changes.gone, *(port.vnic_id for port in changes.ports)}
    ports = (*(port for port in whole.ports if port.vnic_id not in left), *changes.ports)
    used = {group for port in ports for group in port.security_groups}
    groups = merge_groups(whole.security_groups, changes)
    vnis = {port.vni for port in ports}
    return HostDocument(
        host_id=whole.host_id,
        revision=changes.revision,
        ports=ports,
        security_groups={group: groups[group] for group in sorted(used & groups.keys())},
        identities=_named(merge_identities(whole.identities, changes), groups, used),
        preprogrammed=tuple(sorted(merge_preprogrammed(whole.preprogrammed, changes) & vnis)),
    )


def merge_groups(whole: Groups, changes: HostChanges) -> Groups:
    """The rules of all groups; those too that no port is in any more."""
    return {**whole, **changes.security_groups} if changes.security_groups else whole


def merge_identities(whole: Identities, changes: HostChanges) -> Identities:
    """Who is in the groups that rules name: those that the changes name are as they say."""
    named = {rule.remote_group for some in changes.security_groups.values() for rule in some}
    named.discard(None)
    if not named:
        return whole
    merged = {vni: dict(numbers) for vni, numbers in whole.items()}
    for numbers in merged.values():
        for number, groups in numbers.items():
            numbers[number] = tuple(group for group in groups if group not in named)
    for vni, changed in changes.identities.items():
        known = merged.setdefault(vni, {})
        for number, groups in changed.items():
            known[number] = tuple(sorted((*known.get(number, ()), *groups)))
    return merged


def merge_preprogrammed(whole: Collection[int], changes: HostChanges) -> set[int]:
    """VNIs whose routes are all to be held, those too that no port is in any more."""
    told = {port.vni for port in changes.ports}
    return (set(whole) - told) | set(changes.preprogrammed)


def _named(
    identities: Identities, groups: Groups, used: Collection[UUID]
) -> dict[int, dict[int, tuple[UUID, ...]]]:
    """Of these, what rules of the groups in use name."""
    named = {rule.remote_group for group in used for rule in groups.get(group, ())}
    found: dict[int, dict[int, tuple[UUID, ...]]] = {}
    for vni, numbers in identities.items():
        for number, members in numbers.items():
            if inside := tuple(group for group in members if group in named):
                found.setdefault(vni, {})[number] = inside
    return found
