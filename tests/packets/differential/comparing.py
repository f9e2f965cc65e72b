"""Whether the programs and the model have done the same: verdict, frame, counters, sessions."""

import time
from collections import Counter
from typing import Any, Final

import numpy as np
from model.host import Outcome
from model.inbound import from_underlay
from model.outbound import from_guest
from model.sessions import Here, Key, Session
from model.world import Route, sixteen
from packets.differential.both import Both
from packets.differential.traffic import Sent
from packets.outcome import LOOPBACK, Verdict, gained, skb_context, totals

from achelous_shared.bpf import RingBuffer, dtype_of

VERDICTS: Final = {"drop": Verdict.DROP, "next": Verdict.NEXT}
"""By the model's action; all others are redirects."""
COUNTED: Final = (
    "tx_packets", "tx_bytes", "rx_packets", "rx_bytes", "local", "direct", "relayed", "slow_path",
    "learn_events",
)  # fmt: skip
SOURCE_PORT: Final = slice(34, 36)
"""Of a frame on the wire: the kernel's hash decides."""
DYNAMIC: Final = 49152
LOCAL_HOP: Final = 1 << 31
BUDGET: Final = 15
"""ICMP errors, less than a vNIC may be told of in 100 ms."""
PATIENCE: Final = 0.9
"""Seconds of real time by which the programs may be late: time is made here, in tens of seconds."""


class Stalled(Exception):
    """The machine stood still for so long that real time would decide."""


class Comparison:
    """Sends frames to both sides; AssertionError where they differ."""

    def __init__(self, both: Both) -> None:
        loaded = both.real.loaded
        self._both = both
        self._loaded = loaded
        self._learned = RingBuffer(loaded.maps["learn"], dtype_of(loaded, "ach_learn_event"))
        self._before = totals(loaded)
        self._budgets = loaded.maps["icmp_budgets"].lookup_batch_all()
        self._until_budget = BUDGET

    def send(self, sent: Sent) -> Outcome:
        """The frame meets both; returns the model's outcome, with which the programs agree."""
        both = self._both
        result = self._run(sent)
        real = self._read_sessions()
        gone = both.model.table.sessions.keys() - real.keys()
        both.model.table.choose = lambda those: next((key for key in those if key in gone), None)
        if sent.slot:
            expected = from_guest(both.model, sent.slot, sent.frame, both.now, segment=sent.segment)
        else:
            expected = from_underlay(both.model, sent.frame, both.now)
        self._compare_packet(expected, Verdict(result.retval), result.data)
        sessions = both.model.table.sessions
        wanted = {key: _model_session(sessions[key], both.now) for key in sessions}
        same("sessions", real, wanted)
        self._compare_counts()
        return expected

    def _run(self, sent: Sent) -> Any:
        self._until_budget -= 1
        if not self._until_budget:
            keys, values = self._budgets
            self._loaded.maps["icmp_budgets"].update_batch(keys, np.zeros_like(values))
            self._until_budget = BUDGET
        if sent.slot:
            self._both.real.table("port_by_ifindex").update(LOOPBACK, sent.slot)
        program = self._loaded.programs["from_guest" if sent.slot else "from_underlay"]
        context = skb_context(sent.segment, len(sent.frame))
        self._both.hold_time()
        result = program.test_run(sent.frame, ctx=context, ifindex=LOOPBACK)
        if time.monotonic() - self._both.held > PATIENCE:
            raise Stalled
        return result

    def _compare_packet(self, expected: Outcome, verdict: Verdict, frame: bytes) -> None:
        wanted = expected.verdict
        now = totals(self._loaded)
        counted = gained(self._loaded, now - self._before)
        self._before = now
        same("counted", counted, {slot: dict(names) for slot, names in expected.counted.items()})
        same("verdict", verdict, VERDICTS.get(wanted.action, Verdict.REDIRECT))
        if wanted.action == "wire":
            assert int.from_bytes(frame[SOURCE_PORT], "big") >= DYNAMIC
            frame = frame[:34] + wanted.frame[SOURCE_PORT] + frame[36:]
        if wanted.action != "drop":
            same("frame", frame.hex(), wanted.frame.hex())
        told = [
            (int(event["vni"]), event["ip"].tobytes(), int(event["port"]))
            for event in self._learned.read(100)
        ]
        events, self._both.model.learning.events = self._both.model.learning.events, []
        same("learned", told, [(vni, sixteen(address), slot) for vni, address, slot in events])

    def _read_sessions(self) -> dict[Key, Any]:
        keys, values = self._loaded.maps["sessions"].lookup_batch_all()
        clock = time.monotonic_ns()
        return {
            _key(key): _real_session(value, clock) for key, value in zip(keys, values, strict=True)
        }

    def _compare_counts(self) -> None:
        """Who is charged for how many sessions, and how many there have been."""
        table, real = self._both.model.table, self._both.real
        counts = real.table("session_counts").mmap()
        for name, counted in (("opened", table.opened), ("closed", table.closed)):
            for slot, of_slot in enumerate(counts[name].tolist()):
                same(f"{name} of {slot}", of_slot, [counted[slot, False], counted[slot, True]])
        hands = real.table("session_hands").mmap()[0]
        same("made", (hands["head"], hands["reclaimed"]), (table.made, table.reclaimed))

    def compare_rest(self) -> None:
        """What need not be looked at after every packet."""
        model, real = self._both.model, self._both.real
        known = len(real.table("fragments").lookup_batch_all()[0])
        same("datagrams", known, len(model.firsts))
        used = real.table("fc").mmap()["last_used_ns"]
        for route in model.world.routes.values():
            same(f"use of route {route.slot}", bool(used[route.slot]), route.used)


def same(what: str, real: Any, wanted: Any) -> None:
    """Raises AssertionError where the programs and the model differ."""
    if real == wanted:
        return
    if isinstance(real, dict):
        keys = [key for key in real.keys() | wanted.keys() if real.get(key) != wanted.get(key)]
        real, wanted = ({key: side.get(key) for key in keys} for side in (real, wanted))
    raise AssertionError(f"{what}:\n  programs {real}\n  model    {wanted}")


def _key(key: Any) -> Key:
    first, second = (
        (ip.tobytes(), int(port)) for ip, port in zip(key["ip"], key["port"], strict=True)
    )
    return Key(int(key["vni"]), int(key["proto"]), (first, second))


def _real_session(value: Any, clock: int) -> dict[str, Any]:
    return {
        "flags": int(value["flags"]),
        "owner": int(value["owner"]),
        "hops": [tuple(hop) for hop in value["hop"].tolist()],
        "admitted": list(zip(value["acl_port"].tolist(), value["acl_gen"].tolist(), strict=True)),
        "identities": value["identity"].tolist(),
        "packets": value["packets"].tolist(),
        "bytes": value["bytes"].tolist(),
        "idle": round((clock - int(value["last_seen_ns"].astype(np.int64))) / 1e10),
    }


def _model_session(session: Session, now: float) -> dict[str, Any]:
    return {
        "flags": _flags(session),
        "owner": session.owner,
        "hops": [_hop(hop) for hop in session.hops],
        "admitted": session.admitted,
        "identities": session.identities,
        "packets": session.packets,
        "bytes": session.bytes,
        "idle": round((now - session.last_seen) / 10),
    }


def _hop(hop: Here | Route | None) -> tuple[int, int]:
    if hop is None:
        return 0, 0
    return (LOCAL_HOP | hop.vnic.slot, hop.generation) if isinstance(hop, Here) else (hop.slot, 1)


def _flags(session: Session) -> int:
    """Enum ach_session_flags."""
    return (
        session.initiator
        | 2 * session.replied
        | sum(4 << side for side in session.fins)
        | sum(16 << side for side in session.resets)
        | 64 * session.established
        | 128 * session.arrived
    )


def kinds(expected: Outcome, both: Both) -> Counter[str]:
    """What kinds of case this was: the verdict, what was counted, the states of sessions."""
    verdict, table = expected.verdict, both.model.table
    met = Counter([verdict.action])
    if verdict.reason:
        met[verdict.reason] += 1
        met[f"told {verdict.reason}"] += verdict.action == "back"
    counted = {name for names in expected.counted.values() for name in names}
    met.update(counted & set(COUNTED))
    met["hit"] += verdict.action in ("guest", "wire") and "slow_path" not in counted
    met.update(f"{key.protocol} {of.state(key.protocol)}" for key, of in table.sessions.items())
    met["reclaimed"] += table.reclaimed > 0
    return +met
