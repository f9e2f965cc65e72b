"""Pinned maps of another layout: entries go over, or it is said why not."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from other_layout import MORE_FIELDS, NO_PROTOCOL, compile_vswitch
from packets.datapath import SMALL, Datapath
from packets.frames import frame, guest, tcp, udp
from packets.outcome import Verdict

from achelous_shared.bpf import BpfError, BpfObject, MapLayoutChanged, ensure_bpffs
from achelous_shared.bpf.carry import converted

pytestmark = pytest.mark.kernel

A, B = guest("10.0.0.5"), guest("10.0.0.6")


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "bpf"
    ensure_bpffs(mount)
    try:
        yield mount / "maps"
    finally:
        subprocess.run(["umount", str(mount)], check=True, timeout=10)


@pytest.fixture(scope="module")
def wider(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs whose sessions, ports and FC entries have more fields."""
    return compile_vswitch(tmp_path_factory.mktemp("wider"), MORE_FIELDS) / "vswitch.bpf.o"


def adopted(loaded: BpfObject) -> Datapath:
    """The tables as they are: making a Datapath would empty them."""
    datapath = Datapath.__new__(Datapath)
    datapath.loaded = loaded
    return datapath


def test_a_session_goes_on_under_programs_of_another_layout_and_back(
    objects: Path, wider: Path, pins: Path
) -> None:
    first = objects / "vswitch.bpf.o"
    with BpfObject.open(first, pin_dir=pins, max_entries=SMALL) as loaded:
        datapath = Datapath(loaded)
        a = datapath.port(A.ip)
        datapath.port(B.ip)
        datapath.send(a, frame(A, B.ip, tcp("S")))
        created = datapath.sessions()["created_ns"].tolist()
        counted = datapath.counters()
        datapath.write_rules(a, out=[])  # now only a session carries it
    for path in (wider, first):
        with BpfObject.open(path, pin_dir=pins, max_entries=SMALL, carry=True) as loaded:
            assert {one.new.name for one in loaded.carried} >= {"sessions", "ports", "fc"}
            loaded.settle()
            after = adopted(loaded)
            assert after.sessions()["created_ns"].tolist() == created
            assert after.counters() == counted
            assert after.send(a, frame(A, B.ip, tcp("A"))).verdict is Verdict.REDIRECT
            assert after.send(a, frame(A, B.ip, udp())).dropped == "1:ACL_EGRESS"
            counted = after.counters()
    with BpfObject.open(first, pin_dir=pins, max_entries=SMALL, carry=True) as loaded:
        assert loaded.carried == ()


def test_what_comes_after_the_copy_goes_over_when_the_programs_are_replaced(
    objects: Path, wider: Path, pins: Path
) -> None:
    with BpfObject.open(objects / "vswitch.bpf.o", pin_dir=pins, max_entries=SMALL) as old:
        before = Datapath(old)
        a = before.port(A.ip)
        before.port(B.ip)
        before.send(a, frame(A, B.ip, udp(1)))
        with BpfObject.open(wider, pin_dir=pins, max_entries=SMALL, carry=True) as new:
            before.send(a, frame(A, B.ip, udp(2)))
            assert len(new.maps["sessions"].lookup_batch_all()[0]) == 1
            new.settle()
            assert len(new.maps["sessions"].lookup_batch_all()[0]) == 2


def test_another_size_is_carried_over_if_the_entries_fit(objects: Path, pins: Path) -> None:
    path = objects / "vswitch.bpf.o"
    with BpfObject.open(path, pin_dir=pins, max_entries=SMALL) as loaded:
        for vni in range(1, 11):
            loaded.maps["vnis"].update(vni, vni)
    with BpfObject.open(path, pin_dir=pins, max_entries=SMALL | {"vnis": 10}, carry=True) as loaded:
        loaded.settle()
        assert loaded.maps["vnis"].lookup(10) == 10
    with pytest.raises(MapLayoutChanged, match=r"map vnis: .*holds 10 entries, and only 9 fit"):
        BpfObject.open(path, pin_dir=pins, max_entries=SMALL | {"vnis": 9}, carry=True)


def test_a_key_that_lost_a_field_is_refused_with_what_to_do(
    objects: Path, pins: Path, tmp_path: Path
) -> None:
    with BpfObject.open(objects / "vswitch.bpf.o", pin_dir=pins, max_entries=SMALL):
        pass
    other = compile_vswitch(tmp_path / "other", NO_PROTOCOL) / "vswitch.bpf.o"
    with pytest.raises(MapLayoutChanged, match=r"its key has no proto any more; start the release"):
        BpfObject.open(other, pin_dir=pins, max_entries=SMALL, carry=True)


def test_without_carrying_a_change_of_fields_is_refused(
    objects: Path, wider: Path, pins: Path
) -> None:
    with BpfObject.open(objects / "vswitch.bpf.o", pin_dir=pins, max_entries=SMALL):
        pass
    with pytest.raises(BpfError, match="its fields are others"):
        BpfObject.open(wider, pin_dir=pins, max_entries=SMALL)


def test_fields_go_by_name_and_arrays_as_far_as_they_reach() -> None:
    old = np.zeros(2, [("gone", "u1"), ("hop", [("slot", "<u4")], (2,)), ("port", ">u2")])
    old["hop"]["slot"], old["port"] = [[1, 2], [3, 4]], [80, 443]
    new = converted(old, np.dtype([("port", "<u4"), ("new", "u1"), ("hop", [("slot", "<u8")], 3)]))
    assert new["port"].tolist() == [80, 443]
    assert new["hop"]["slot"].tolist() == [[1, 2, 0], [3, 4, 0]]
    assert new["new"].tolist() == [0, 0]
    with pytest.raises(ValueError, match="field port holds values that uint8 does not"):
        converted(old, np.dtype([("port", "u1")]))
