"""Objects load, run on packets, keep their maps across restarts, and fail with the reason."""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from achelous_shared.bpf import (
    SK_BUFF,
    BpfError,
    BpfObject,
    MapLayoutChanged,
    NetNs,
    ensure_bpffs,
    missing_for_ebpf,
)

pytestmark = pytest.mark.kernel

FRAME = bytes(64)
Compiled = Callable[..., Path]


def context(ctx: bytes) -> np.void:
    found: np.void = np.frombuffer(ctx, SK_BUFF)[0]
    return found


def test_constants_are_set_before_loading(path: Path) -> None:
    constants: dict[str, int | bytes] = {
        "add": 10,
        "vxlan_port": 4789,
        "own_mac": bytes(5) + b"\x07",
    }
    with BpfObject.open(path, pin_dir=None, rodata=constants) as loaded:
        after = context(loaded.programs["count"].test_run(FRAME).ctx)
        counted = loaded.maps["counters"].per_cpu_lookup(1)["packets"].sum()
    assert counted == 10
    assert after["mark"] == int.from_bytes((4789).to_bytes(2, "big"), "little")  # __be16
    assert after["priority"] == 7


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"rodata": {"nosuch": 1}}, KeyError),
        ({"rodata": {"own_mac": b"\x01"}}, ValueError),
        ({"rodata": {"add": 1 << 32}}, OverflowError),
        ({"max_entries": {"nosuch": 1}}, KeyError),
    ],
)
def test_a_wrong_constant_or_size_is_named(
    path: Path, wrong: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        BpfObject.open(path, pin_dir=None, **wrong)


def test_programs_know_what_the_kernel_made_of_them(loaded: BpfObject) -> None:
    assert set(loaded.programs) == {"count", "emit", "encapsulate"}
    count = loaded.programs["count"]
    assert count.name == "count"
    assert count.id > 0
    assert count.verified_insns > 10
    assert count.code_bytes > 10


def test_globals_are_a_record(loaded: BpfObject) -> None:
    state = loaded.maps[".bss"].mmap()
    loaded.programs["count"].test_run(FRAME, repeat=4)
    assert state["runs"].tolist() == [4]


def test_a_run_takes_and_returns_the_context(loaded: BpfObject, namespace: NetNs) -> None:
    base = np.zeros((), SK_BUFF)
    base["cb"][0] = 99
    ifindex = namespace.run_sync(lambda: socket.if_nametoindex("left"))
    run = namespace.run_sync(
        lambda: loaded.programs["count"].test_run(
            FRAME, ctx=base.tobytes(), ifindex=ifindex, ingress_ifindex=5
        )
    )
    assert context(run.ctx)["cb"][0] == 99
    assert context(run.ctx)["priority"] == 5
    assert (run.retval, run.data) == (0, FRAME)
    assert loaded.maps["counters"].per_cpu_lookup(ifindex & 7)["packets"].sum() == 1


def test_a_run_may_make_the_packet_longer(loaded: BpfObject) -> None:
    frame = bytes(12) + b"\x08\x00\x45" + bytes(1400)
    assert len(loaded.programs["encapsulate"].test_run(frame).data) == len(frame) + 50


def test_a_run_that_the_kernel_refuses_says_which(loaded: BpfObject) -> None:
    with pytest.raises(BpfError, match="run program count on 3 bytes") as short:
        loaded.programs["count"].test_run(b"abc")
    with pytest.raises(BpfError) as nowhere:
        loaded.programs["count"].test_run(FRAME, ifindex=999_999)
    assert (short.value.errno, nowhere.value.errno) == (errno.EINVAL, errno.ENODEV)


def test_the_verifier_says_why_it_refused(compiled: Compiled) -> None:
    with pytest.raises(BpfError, match=r"load .*(?s:.*)invalid mem access 'map_value_or_null'"):
        BpfObject.open(compiled(TEST_REFUSED=1), pin_dir=None)


def test_pinned_maps_keep_their_contents_over_a_restart(path: Path, pins: Path) -> None:
    with BpfObject.open(path, pin_dir=pins) as before:
        before.maps["recently_used_flows"].update(1, 11)
        before.programs["count"].test_run(FRAME)
    with BpfObject.open(path, pin_dir=pins, rodata={"add": 100}) as after:
        assert after.maps["recently_used_flows"].lookup(1) == 11
        after.programs["count"].test_run(FRAME)
        assert after.maps["counters"].per_cpu_lookup(1)["packets"].sum() == 101
    assert {pin.name for pin in pins.iterdir()} == {name for name in after.maps if name[0] != "."}


def test_a_changed_layout_is_not_adopted(path: Path, pins: Path) -> None:
    with BpfObject.open(path, pin_dir=pins) as before:
        before.maps["recently_used_flows"].update(1, 11)
    with pytest.raises(
        MapLayoutChanged, match=r"map routes: .*HASH, .*262144 entries.*16 entries"
    ) as told:
        BpfObject.open(path, pin_dir=pins, max_entries={"routes": 16})
    assert told.value.name == "routes"
    assert (told.value.pinned.max_entries, told.value.wanted.max_entries) == (262_144, 16)
    with BpfObject.open(path, pin_dir=pins) as again:
        assert again.maps["recently_used_flows"].lookup(1) == 11


def test_an_object_that_does_not_load_leaves_no_pins(compiled: Compiled, pins: Path) -> None:
    with pytest.raises(BpfError):
        BpfObject.open(compiled(TEST_REFUSED=1), pin_dir=pins)
    assert list(pins.iterdir()) == []


def test_pins_want_a_bpf_filesystem(path: Path, tmp_path: Path) -> None:
    with pytest.raises(BpfError, match=r"pin maps in .*ensure_bpffs"):
        BpfObject.open(path, pin_dir=tmp_path / "pins")


def test_a_bpf_filesystem_is_mounted_once(pins: Path) -> None:
    mounted = pins.parent.stat().st_dev
    ensure_bpffs(pins.parent)
    ensure_bpffs(pins.parent / "inside")
    assert (pins.parent / "inside").stat().st_dev == mounted


def test_opening_and_closing_leaks_no_descriptor(path: Path, pins: Path) -> None:
    def cycle() -> int:
        with BpfObject.open(path, pin_dir=pins) as loaded:
            loaded.maps["ports"].mmap()
        loaded.close()
        return len(list(Path("/proc/self/fd").iterdir()))

    assert cycle() == cycle() == cycle()


def test_what_is_missing_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_for_ebpf() == []
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert missing_for_ebpf() == ["not root (user id 1000): eBPF and network namespaces need root"]
