"""Programs attached to devices stay attached, and are replaced without losing a packet."""

import errno
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from achelous_shared.bpf import BpfError, BpfObject, Link, NetNs, attach_tcx, links

pytestmark = pytest.mark.kernel

FRAME = bytes.fromhex("ffffffffffff02000000000188b5") + bytes(50)  # local experimental EtherType
Attach = Callable[..., Link]


@pytest.fixture(params=["tcx", "clsact"])
def attach(
    request: pytest.FixtureRequest, namespace: NetNs, monkeypatch: pytest.MonkeyPatch
) -> Attach:
    """attach_tcx inside the namespace, with TCX and as on a kernel without it."""
    if request.param == "clsact":
        monkeypatch.setattr(links, "has_tcx", lambda: False)
    return lambda *args, **options: namespace.run_sync(lambda: attach_tcx(*args, **options))


@pytest.fixture
def left(namespace: NetNs) -> int:
    return namespace.run_sync(lambda: socket.if_nametoindex("left"))


@pytest.fixture
def right(namespace: NetNs) -> Iterator[socket.socket]:
    """What is sent here arrives at left."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        made.bind(("right", 0))
        return made

    with closing(namespace.run_sync(make)) as opened:
        yield opened


def current_namespace() -> int:
    return Path("/proc/thread-self/ns/net").stat().st_ino


def send(right: socket.socket, count: int) -> None:
    for _ in range(count):
        right.send(FRAME)


def counted(loaded: BpfObject, expected: int) -> int:
    """Packets that the program saw, once they are `expected`, or after 5 s."""
    deadline = time.monotonic() + 5
    while True:
        found = int(loaded.maps["counters"].per_cpu_all()["packets"].sum())
        if found >= expected or time.monotonic() > deadline:
            return found
        time.sleep(0.005)


def test_an_attached_program_sees_packets_until_detached(
    loaded: BpfObject, attach: Attach, left: int, right: socket.socket, namespace: NetNs
) -> None:
    link = attach(loaded.programs["count"], left, pin=None)
    assert link.ifindex == left
    send(right, 10)
    assert counted(loaded, 10) == 10
    namespace.run_sync(link.detach)
    send(right, 10)
    assert counted(loaded, 10) == 10


def test_egress_sees_what_the_device_sends(
    loaded: BpfObject, attach: Attach, right: socket.socket, namespace: NetNs
) -> None:
    device = namespace.run_sync(lambda: socket.if_nametoindex("right"))
    attach(loaded.programs["count"], device, egress=True, pin=None)
    send(right, 3)
    assert counted(loaded, 3) == 3


def test_an_unpinned_attachment_ends_with_its_link(
    loaded: BpfObject, attach: Attach, left: int, right: socket.socket, namespace: NetNs
) -> None:
    namespace.run_sync(attach(loaded.programs["count"], left, pin=None).close)
    send(right, 10)
    assert counted(loaded, 0) == 0


def test_a_pinned_attachment_outlives_its_process_and_is_adopted(
    compiled: Callable[..., Path], attach: Attach, left: int, right: socket.socket, pins: Path
) -> None:
    pin = pins / "links" / "left"
    with BpfObject.open(compiled(), pin_dir=pins) as first:
        attach(first.programs["count"], left, pin=pin).close()
    send(right, 10)  # nobody holds the program but the kernel
    with BpfObject.open(compiled(), pin_dir=pins, rodata={"add": 100}) as second:
        assert counted(second, 10) == 10
        link = attach(second.programs["count"], left, pin=pin)
        send(right, 10)
        assert counted(second, 1010) == 1010  # once per packet: replaced, not added
        link.close()


def test_replacing_a_program_under_traffic_loses_no_packet(
    compiled: Callable[..., Path], attach: Attach, left: int, right: socket.socket, pins: Path
) -> None:
    pin = pins / "links" / "left"
    opened = [BpfObject.open(compiled(TEST_VERDICT=v), pin_dir=pins) for v in (0, 2)]
    attach(opened[0].programs["count"], left, pin=pin).close()
    sent = 0
    replaced_enough = threading.Event()

    def send_meanwhile() -> None:
        nonlocal sent
        until = time.monotonic() + 60
        while not replaced_enough.is_set() and time.monotonic() < until:
            send(right, 1)
            sent += 1

    with ThreadPoolExecutor(1) as traffic:
        sending = traffic.submit(send_meanwhile)
        try:
            for turn in range(50):
                before = sent
                attach(opened[turn % 2].programs["count"], left, pin=pin).close()
                while sent == before and not sending.done():
                    time.sleep(0)  # each of the programs gets something to see
                assert not sending.done(), "the traffic ended before the programs were replaced"
        finally:
            replaced_enough.set()
        sending.result()
    assert counted(opened[0], sent) == sent
    for each in opened:
        each.close()


def test_a_pin_whose_device_is_gone_is_made_anew(
    loaded: BpfObject, namespace: NetNs, left: int, pins: Path
) -> None:
    def attach_again() -> int:
        link = attach_tcx(
            loaded.programs["count"], socket.if_nametoindex("left"), pin=pins / "left"
        )
        link.close()
        return link.ifindex

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", "link", *arguments], check=True, timeout=10)

    assert namespace.run_sync(attach_again) == left
    namespace.run_sync(lambda: ip("del", "left"))
    namespace.run_sync(lambda: ip("add", "left", "type", "veth", "peer", "name", "right"))
    assert namespace.run_sync(attach_again) != left
    assert namespace.run_sync(attach_again) != left


def test_detaching_removes_the_pin(
    loaded: BpfObject, namespace: NetNs, left: int, pins: Path
) -> None:
    pin = pins / "left"
    link = namespace.run_sync(lambda: attach_tcx(loaded.programs["count"], left, pin=pin))
    assert pin.exists()
    link.detach()
    assert not pin.exists()


def test_a_link_that_cannot_be_pinned_is_not_left_attached(
    loaded: BpfObject, namespace: NetNs, left: int, right: socket.socket, tmp_path: Path
) -> None:
    with pytest.raises(BpfError, match="pin a link at"):
        namespace.run_sync(
            lambda: attach_tcx(loaded.programs["count"], left, pin=tmp_path / "not-a-bpffs")
        )
    send(right, 1)
    assert counted(loaded, 0) == 0


def test_a_device_that_is_not_there_is_named(
    loaded: BpfObject, attach: Attach, namespace: NetNs
) -> None:
    with pytest.raises(BpfError, match="device 4711") as refused:
        attach(loaded.programs["count"], 4711, pin=None)
    assert refused.value.errno == errno.ENODEV


async def test_calls_run_inside_and_the_process_stays_outside(namespace: NetNs) -> None:
    outside = current_namespace()
    inside = await namespace.run(current_namespace)
    again = namespace.run_sync(current_namespace)
    assert inside == again != outside
    assert current_namespace() == outside


def test_no_path_means_the_namespace_of_the_process() -> None:
    with closing(NetNs(None)) as current:
        inside = current.run_sync(current_namespace)
    assert inside == current_namespace()


def test_a_namespace_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nosuch"):
        NetNs(tmp_path / "nosuch")
    (tmp_path / "file").touch()
    with pytest.raises(BpfError, match=r"enter network namespace .*file"):
        NetNs(tmp_path / "file")
