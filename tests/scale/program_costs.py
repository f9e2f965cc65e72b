"""What one run of a program costs, by BPF_PROG_TEST_RUN, less what the harness itself costs.

Many flows are run by one test-run: a small program gives each repetition another flow and calls
`from_guest` (random_flows.bpf.c), so that code is as warm as on a busy host and data as cold.
"""

import statistics
import struct
import subprocess
from ipaddress import IPv4Address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from packets.datapath import SMALL, Datapath, Port, Rule
from packets.frames import ETHERNET, ROUTER, frame, udp
from packets.outcome import LOOPBACK
from packets.tables import mac_bytes

from achelous_shared.bpf import BpfObject, object_path

FLOWS: Final = 400_000
RULES: Final = (10, 100, 500)
_SAMPLES: Final = 3000
_REPEAT: Final = 200_000
_ROUNDS: Final = 5
_ROOT: Final = Path(__file__).parents[2]
_PORTS_AT: Final = ETHERNET + 20


def program_costs() -> dict[str, Any]:
    """`ns`, `session_bytes`, `verifier` and `code_bytes` of datapath.json."""
    sizes = SMALL | {"sessions": 1 << 20, "session_ring": 1 << 20}
    with BpfObject.open(object_path("vswitch"), pin_dir=None, max_entries=sizes) as vswitch:
        sessions = vswitch.maps["sessions"]
        result: dict[str, Any] = {
            "ns": _nanoseconds(vswitch),
            "session_bytes": sessions.key_dtype.itemsize + sessions.value_dtype.itemsize,
            "verifier": {name: one.verified_insns for name, one in vswitch.programs.items()},
            "code_bytes": {name: one.code_bytes for name, one in vswitch.programs.items()},
        }
    with BpfObject.open(object_path("gateway"), pin_dir=None) as gateway:
        for name, one in gateway.programs.items():
            result["verifier"][name] = one.verified_insns
            result["code_bytes"][name] = one.code_bytes
    return result


def _nanoseconds(vswitch: BpfObject) -> dict[str, float]:
    datapath = Datapath(vswitch)
    # Delivery gives a frame the router's MAC as its source: a guest with that very MAC lets the
    # same frame be run again and again.
    sender, receiver = (datapath.port(ip, mac=mac_bytes(ROUTER)) for ip in ("10.0.0.5", "10.0.0.9"))
    sent = bytearray(frame(sender.guest, receiver.guest.ip, udp()))
    sent[6:12] = bytes.fromhex(ROUTER.replace(":", ""))
    datapath.table("port_by_ifindex").update(LOOPBACK, sender.slot)
    hot = _run(vswitch, bytes(sent), repeat=_REPEAT) - _harness(vswitch, repeat=_REPEAT)
    harness = statistics.median(_harness(vswitch, repeat=1) for _ in range(_SAMPLES))
    _preload(datapath)
    many = [_random_flows(vswitch, bytes(sent)) for _ in range(_ROUNDS)]
    slow = {
        count: statistics.median(
            _run(vswitch, one, repeat=1) for one in _new(datapath, sent, receiver, count, start)
        )
        for start, count in enumerate(RULES)
    }
    return {
        "session_hit_hot": hot,
        "session_hit_400k": statistics.median(many),
        **{f"slow_path_{count}_rules": ns - harness for count, ns in slow.items()},
        "harness": harness,
    }


def _random_flows(vswitch: BpfObject, sent: bytes) -> int:
    """Session hits over random ones of all flows, less what choosing a flow costs."""
    took = {}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "random_flows.bpf.o"
        includes = [f"-I{_ROOT / 'shared/bpf'}", f"-I{object_path('vswitch').parent}"]
        options = ["-O2", "-g", "-target", "bpf", "-Wno-missing-declarations", *includes]
        source = Path(__file__).with_name("random_flows.bpf.c")
        subprocess.run(["clang-16", *options, "-c", str(source), "-o", str(path)], check=True)
        for forward in (0, 1):
            constants = {"flows": FLOWS, "forward": forward}
            with BpfObject.open(path, pin_dir=None, rodata=constants) as chooser:
                chooser.maps["next"].update(0, vswitch.programs["from_guest"].fd)
                program = chooser.programs["random_flow"]
                result = program.test_run(sent, repeat=_REPEAT, ifindex=LOOPBACK)
                assert result.retval == (7 if forward else 2), f"verdict {result.retval}"
                took[forward] = result.duration_ns
    return took[1] - took[0]


def _run(vswitch: BpfObject, data: bytes, *, repeat: int) -> int:
    result = vswitch.programs["from_guest"].test_run(data, repeat=repeat, ifindex=LOOPBACK)
    assert result.retval == 7, f"verdict {result.retval}: not delivered"
    return result.duration_ns


def _harness(vswitch: BpfObject, *, repeat: int) -> int:
    """A frame that the program leaves alone after its first look."""
    data = b"\0" * 12 + b"\x88\xb5" + b"\0" * 46  # an EtherType for experiments (IEEE 802)
    return vswitch.programs["from_underlay"].test_run(data, repeat=repeat).duration_ns


def _flow(number: int) -> tuple[int, int]:
    return 1024 + number % 60_000, 3000 + number // 60_000


def _with_ports(sent: bytearray, sport: int, dport: int) -> bytes:
    made = bytearray(sent)
    struct.pack_into(">HH", made, _PORTS_AT, sport, dport)
    return bytes(made)


def _preload(datapath: Datapath) -> None:
    """Sessions of all flows, like the one that was made by the first packet."""
    table = datapath.table("sessions")
    keys, values = table.lookup_batch_all()
    flows = np.array([_flow(number) for number in range(FLOWS)])
    many = np.repeat(keys[:1], FLOWS)
    many["port"] = flows  # the sender's address is the lower one: its port comes first
    table.update_batch(many, np.repeat(values[:1], FLOWS))


def _new(
    datapath: Datapath, sent: bytearray, receiver: Port, count: int, start: int
) -> list[bytes]:
    """Frames of flows that have no session, which the last of `count` rules admits; no two of the
    rules are alike in port or address."""
    first = int(IPv4Address("10.0.1.0"))
    others = [
        Rule(f"{IPv4Address(first + number)}/32", 6, (number, number)) for number in range(1, count)
    ]
    datapath.allow(receiver, into=[*others, Rule(proto=17, ports=(5000, 9000))])
    return [_with_ports(sent, 1024 + number, 6000 + start) for number in range(_SAMPLES)]
