"""A host that is told what changed runs what one runs that is told everything.

A small database goes through random histories. Its documents are published as the leader does it,
with failures, other leaders and little room, and read by hosts that begin at any moment.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from achelous_controller.programming.documents import rules_of
from achelous_controller.programming.held_ports import Change, Held, HeldPorts
from achelous_controller.programming.host_documents import message_of
from achelous_shared.host_documents import HostReader, assemble
from achelous_shared.messages import (
    HostChanges,
    HostDocument,
    Port,
    SecurityRule,
    decode_host,
    encode,
)
from achelous_vswitch.plan import Desired
from achelous_vswitch.resolver import Resolver

HOST = UUID(int=100)
OTHER = UUID(int=101)
VNICS = [UUID(int=n) for n in range(1, 13)]
GROUPS = [UUID(int=200 + n) for n in range(4)]
VNIS = [5, 6]
PREPROGRAMMED = frozenset([6])


def port(vnic_id: UUID, revision: int, groups: frozenset[UUID]) -> Port:
    number = vnic_id.int
    return Port(
        vnic_id=vnic_id, instance_id=vnic_id, vni=VNIS[number % 4 == 0], mac=b"\2" * 6,
        ip=bytes(15) + bytes([number % 10]),  # two of them want the same address
        prefix_len=120, router=bytes(16), mtu=1500, security_groups=tuple(sorted(groups)),
        revision=revision,
    )  # fmt: skip


def rule(remote: UUID | None, port_min: int) -> SecurityRule:
    return SecurityRule(
        egress=False, protocol=6, port_min=port_min, port_max=port_min, remote=bytes(16),
        remote_len=0, remote_group=remote,
    )  # fmt: skip


@dataclass
class Database:
    """What concerns one host, and the outbox."""

    revision: int = 0
    ports: dict[UUID, Port] = field(default_factory=dict)
    rules: dict[UUID, list[SecurityRule]] = field(default_factory=dict)
    identities: dict[int, tuple[UUID, ...]] = field(default_factory=dict)
    rows: list[Change] = field(default_factory=list)

    def touch(self, vnics: bytes | None) -> None:
        self.revision += 1
        self.rows.append(Change(self.revision, HOST, self.revision, vnics))

    def toggle(self, vnics: set[UUID], groups: frozenset[UUID]) -> None:
        for vnic in vnics:
            if self.ports.pop(vnic, None) is None:
                self.ports[vnic] = port(vnic, self.revision + 1, groups)
        self.touch(b"".join(sorted(vnic.bytes for vnic in vnics)))

    def write_rules(self, group: UUID, remote: UUID | None, number: int) -> None:
        self.rules[group] = [rule(remote, number)]
        if group in self.used:
            self.touch(None)

    def number(self, number: int, groups: frozenset[UUID]) -> None:
        """Give a number to a set; of hosts those are told that have a rule which names one."""
        told = {*self.identities.get(number, ()), *groups} & self.named
        self.identities[number] = tuple(sorted(groups))
        if told:
            self.touch(None)

    @property
    def used(self) -> set[UUID]:
        return {group for port in self.ports.values() for group in port.security_groups}

    @property
    def named(self) -> set[UUID | None]:
        return {rule.remote_group for group in self.used for rule in self.rules.get(group, ())}

    @property
    def members(self) -> list[tuple[int, int, tuple[UUID, ...]]]:
        return [(5, number, groups) for number, groups in self.identities.items()]

    def message(self, now: Held) -> HostDocument | HostChanges:
        return message_of(HOST, now, now.untold(), self.rules, self.members)

    def whole(self) -> HostDocument:
        groups, members = rules_of(self.used, self.rules, self.members)
        ahead = {port.vni for port in self.ports.values()} & PREPROGRAMMED
        return HostDocument(
            host_id=HOST, revision=self.revision, ports=tuple(self.ports.values()),
            security_groups=groups, identities=members, preprogrammed=tuple(sorted(ahead)),
        )  # fmt: skip


class Stream:
    """The last message of each subject, in order."""

    def __init__(self) -> None:
        self._last: dict[type, bytes] = {}

    def take(self, data: bytes) -> None:
        kind = type(decode_host(data))
        self._last.pop(kind, None)
        self._last[kind] = data

    def last(self) -> list[bytes]:
        return list(self._last.values())


class SlowHost:
    """Begins at some moment, and takes what the stream has for it one by one.

    What is replaced before it was taken never comes.
    """

    def __init__(self, last: list[bytes], max_ports: int) -> None:
        self._backlog = last
        self._agent = Resolver(max_ports=max_ports, max_rules=9)
        self.reader = HostReader()
        self.runs: Desired | None = None

    def published(self, data: bytes) -> None:
        kind = type(decode_host(data))
        self._backlog = [old for old in self._backlog if type(decode_host(old)) is not kind]
        self._backlog.append(data)

    def take_one(self) -> bool:
        """Whether there was one."""
        for data in self._backlog[:1]:
            del self._backlog[0]
            self.reader.take(decode_host(data))
            self.runs = self._agent.take(decode_host(data)) or self.runs
            return True
        return False


def in_order(document: HostDocument | None) -> object:
    assert document is not None
    return (
        document.revision, sorted(document.ports, key=lambda port: port.vnic_id),
        document.security_groups, document.identities, document.preprogrammed,
    )  # fmt: skip


class World:
    """The leader, the stream, and a host as several readers that began at different moments."""

    def __init__(self, limit: int, max_ports: int) -> None:
        self.database, self.stream = Database(), Stream()
        self.max_ports = max_ports
        self.held = HeldPorts(limit)
        self.limit = limit
        self.before = HeldPorts(limit)
        """Of the leader before this one, who may not know yet."""
        self.hosts = [SlowHost([], max_ports)]
        self.torn = False
        """Whether two leaders have published, and this one no whole document since."""

    def publish(self) -> None:
        """A step of the leader."""
        self.step(self.held)

    def publish_again(self) -> None:
        self.step(self.held, again=True)

    def fail(self) -> None:
        """The bus does not take it."""
        self.step(self.held, taken=False, told=False)

    def be_silent(self) -> None:
        """The bus takes it, and the leader does not hear of that, or dies."""
        self.step(self.held, told=False)

    def two_leaders(self) -> None:
        """The one before still publishes, and this one's changes may stand on nothing then."""
        self.step(self.before)
        self.torn = True

    def repair(self) -> None:
        """As the leader does when a host reports an older document than it should run."""
        reporting = self.hosts[0]
        for _ in range(3):
            while reporting.take_one():
                pass
            if reporting.reader.revision < self.database.revision:
                self.step(self.held, again=True)

    def step(
        self, held: HeldPorts, *, taken: bool = True, told: bool = True, again: bool = False
    ) -> None:
        database = self.database
        held.trim()
        missing = held.missing(HOST, database.revision, database.rows, again=again)
        read = [
            port for port in database.ports.values() if missing is None or port.vnic_id in missing
        ]
        now = held.update(HOST, database.revision, missing, read, PREPROGRAMMED)
        message = database.message(now)
        assert isinstance(message, HostChanges) or now.all
        if taken:
            self.stream.take(encode(message))
            for host in self.hosts:
                host.published(encode(message))
        if taken and told:
            if isinstance(message, HostDocument):
                now.published()
                self.torn = self.torn and held is not self.held
            database.rows.clear()

    def check(self) -> None:
        """Who has taken all runs what the database says, as a new agent would that is told of the
        whole, its ports in the same order."""
        if self.torn:
            self.repair()
        expected = in_order(self.database.whole())
        for host in self.hosts:
            while host.take_one():
                pass
            document = host.reader.document()
            assert document is not None
            assert in_order(document) == expected
            assert host.runs == Resolver(max_ports=self.max_ports, max_rules=9).take(document)

    def publish_and_check(self) -> None:
        self.publish()
        self.check()

    def new_leader(self) -> None:
        self.before, self.held = self.held, HeldPorts(self.limit)

    def begin(self) -> None:
        self.hosts.append(SlowHost(self.stream.last(), self.max_ports))

    def deliver(self) -> None:
        for host in self.hosts:
            host.take_one()

    def other_hosts(self) -> None:
        """They take all the room that there is."""
        ports = [port(vnic, 1, frozenset()) for vnic in VNICS]
        self.held.update(OTHER, 1, None, ports)


groups = st.frozensets(st.sampled_from(GROUPS), max_size=2)
steps: st.SearchStrategy[Callable[[World], None]] = st.one_of(
    st.builds(
        lambda vnics, of: lambda world: world.database.toggle(vnics, of),
        st.sets(st.sampled_from(VNICS), min_size=1, max_size=2),
        groups,
    ),
    st.builds(
        lambda group, remote, n: lambda world: world.database.write_rules(group, remote, n),
        st.sampled_from(GROUPS),
        st.none() | st.sampled_from(GROUPS),
        st.integers(1, 3),
    ),
    st.builds(
        lambda number, of: lambda world: world.database.number(number, of),
        st.integers(1, 3),
        groups,
    ),
    *(
        st.just(step)
        for step in (
            World.publish,
            World.publish_and_check,
            World.publish_again,
            World.fail,
            World.be_silent,
            World.two_leaders,
            World.new_leader,
            World.begin,
            World.deliver,
            World.other_hosts,
        )
    ),
)


@given(
    st.lists(steps, max_size=40),
    st.sampled_from([2_000, 4_000, 1 << 20]),
    st.sampled_from([6, 20]),
)
def test_whatever_happens(
    history: list[Callable[[World], None]], limit: int, max_ports: int
) -> None:
    world = World(limit, max_ports)
    world.database.toggle(set(VNICS[:9]), frozenset(GROUPS[:1]))
    world.publish()
    for step in history:
        step(world)
    world.publish_and_check()


def test_changes_that_stand_on_another_document_are_left_alone() -> None:
    reader = HostReader()
    old = HostChanges(host_id=HOST, base=3, revision=9)
    assert not reader.take(old)
    assert reader.take(HostDocument(host_id=HOST, revision=5, ports=(), security_groups={}))
    assert not reader.take(old)
    assert reader.revision == 5
    assert reader.take(HostChanges(host_id=HOST, base=5, revision=7))
    assert not reader.take(HostChanges(host_id=HOST, base=5, revision=6))
    assert reader.revision == 7


def test_a_whole_follows_before_changes_are_as_long() -> None:
    held, told = HeldPorts(), []
    ports = [port(UUID(int=n), 1, frozenset(GROUPS[:1])) for n in range(750)]
    now = held.update(HOST, 1, None, ports)
    now.published()
    for revision in range(2, 300):
        new = UUID(int=1000 + revision)
        now = held.update(HOST, revision, {new}, [port(new, revision, frozenset())])
        told.append(len(now.changed()) if now.whole else 0)
        if now.whole is None:
            now.published()
    assert 77 <= max(told) < 90
    assert told.count(0) == 3
    assert sum(told) / len(told) < 40  # of 750


def test_assembling_with_another_document_is_refused() -> None:
    whole = HostDocument(host_id=HOST, revision=5, ports=(), security_groups={})
    with pytest.raises(ValueError, match="since 4"):
        assemble(whole, HostChanges(host_id=HOST, base=4, revision=7))


def test_rules_that_changed_while_the_host_had_nobody_in_the_group_are_told() -> None:
    database, held, reader = Database(), HeldPorts(), HostReader()

    def tell(changed: set[UUID] | None) -> HostDocument | HostChanges:
        found = [
            port for port in database.ports.values() if changed is None or port.vnic_id in changed
        ]
        now = held.update(HOST, database.revision, changed, found, PREPROGRAMMED)
        message = database.message(now)
        if isinstance(message, HostDocument):
            now.published()
        assert reader.take(decode_host(encode(message)))
        assert in_order(reader.document()) == in_order(database.whole())
        return message

    group, other, named = GROUPS[:3]
    database.toggle(set(VNICS[1:9]), frozenset())
    database.toggle({VNICS[0]}, frozenset([group]))
    database.write_rules(group, named, 1)
    database.number(7, frozenset([named]))
    tell(None)
    database.toggle({VNICS[0]}, frozenset())
    tell({VNICS[0]})

    database.write_rules(group, named, 2)
    database.rules[other] = [rule(named, 3)]
    database.identities = {8: (named,)}
    database.toggle({VNICS[9]}, frozenset([group, other]))
    message = tell({VNICS[9]})
    assert isinstance(message, HostChanges)
    assert set(message.security_groups) == {group, other}
