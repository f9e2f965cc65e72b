"""What is held of a host's ports is what the database has, or is known not to be."""

from uuid import UUID

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from achelous_controller.programming.held_ports import Change, HeldPorts
from achelous_shared.messages import Port

HOSTS = [UUID(int=100 + n) for n in range(3)]
VNICS = [UUID(int=n) for n in range(6)]


def port(vnic_id: UUID, revision: int) -> Port:
    return Port(
        vnic_id=vnic_id, instance_id=vnic_id, vni=5, mac=b"\2" * 6, ip=b"\1" * 16, prefix_len=120,
        router=b"\1" * 16, mtu=1500, security_groups=(UUID(int=7),), revision=revision,
    )  # fmt: skip


steps = st.lists(
    st.tuples(
        st.sampled_from(HOSTS),
        st.sets(st.sampled_from(VNICS)),
        st.booleans(),  # anything may have changed
        st.booleans(),  # published by another leader, its row is gone
        st.booleans(),  # read now, or with a later change
    ),
    max_size=30,
)


@given(steps, st.sampled_from([200, 1 << 20]))
def test_what_is_published_is_what_the_database_has(
    changes: list[tuple[UUID, set[UUID], bool, bool, bool]], limit: int
) -> None:
    held = HeldPorts(limit)
    stored: dict[UUID, dict[UUID, int]] = {host: {} for host in HOSTS}
    revision = dict.fromkeys(HOSTS, 0)
    rows: list[Change] = []
    for host, vnics, anything, elsewhere, now in changes:
        revision[host] += 1
        for vnic in vnics:  # there: it goes; not there: it comes
            if stored[host].pop(vnic, None) is None:
                stored[host][vnic] = revision[host]
        packed = None if anything else b"".join(vnic.bytes for vnic in vnics)
        if not elsewhere:
            rows.append(Change(len(rows), host, revision[host], packed))
        if not now:
            continue
        held.trim()
        missing = held.missing(host, revision[host], [row for row in rows if row.host_id == host])
        rows = [row for row in rows if row.host_id != host]
        read = [
            port(vnic, at)
            for vnic, at in stored[host].items()
            if missing is None or vnic in missing
        ]
        current = held.update(host, revision[host], missing, read)

        published = msgspec.msgpack.decode(
            msgspec.msgpack.encode([held.encoded for held in current.ports.values()]),
            type=list[Port],
        )
        assert {one.vnic_id: one.revision for one in published} == stored[host]
        assert current.size == sum(len(msgspec.msgpack.encode(one)) for one in published)


def test_hosts_that_are_read_together_do_not_displace_each_other() -> None:
    held = HeldPorts(limit_bytes=1)
    for host in HOSTS:
        held.update(host, 1, held.missing(host, 1, []), [port(VNICS[0], 1)])
    rows = {host: [Change(1, host, 2, VNICS[1].bytes)] for host in HOSTS}
    missing = {host: held.missing(host, 2, rows[host]) for host in HOSTS}

    for host in HOSTS:
        current = held.update(host, 2, missing[host], [port(VNICS[1], 2)])
        assert set(current.ports) == {vnic.bytes for vnic in VNICS[:2]}

    held.trim()
    assert [held.missing(host, 2, []) for host in HOSTS] == [None] * 3


def test_only_what_changed_is_read_again() -> None:
    held = HeldPorts()
    host, (first, second, *_) = HOSTS[0], VNICS
    held.update(host, 1, held.missing(host, 1, []), [port(first, 1)])

    row = Change(1, host, 2, second.bytes)
    assert held.missing(host, 2, [row]) == {second}
    assert held.missing(host, 1, []) == set()  # the same again
    assert held.missing(host, 3, [row]) is None  # a row is missing
    assert held.missing(HOSTS[1], 1, []) is None
