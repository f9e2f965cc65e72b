"""One run of a program on one frame, and what became of it."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np

from achelous_shared.bpf import SK_BUFF, BpfObject, enum_of

LOOPBACK: Final = 1  # the only device that a test run can count on: every frame enters here
_NOT_OF_ONE_PACKET: Final = {
    "drops", "learn_window", "learn_in_window",
    "sample_window", "samples_in_window", "samples_lost",
}  # fmt: skip
Counters = dict[int, dict[str, int]]
"""Slot -> name -> count; drops by the name of their reason, in capitals."""


class Verdict(IntEnum):
    """What a program tells TCX."""

    NEXT = -1
    DROP = 2
    REDIRECT = 7


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a frame. `counted`: what each slot's counters gained, drops by reason."""

    verdict: Verdict
    frame: bytes
    counted: Counters

    @property
    def dropped(self) -> str | None:
        """`<slot>:<reason>` of the one drop that was counted."""
        drops = [
            f"{slot}:{name}"
            for slot, gained in self.counted.items()
            for name in gained
            if name.isupper()
        ]
        assert len(drops) <= 1
        return drops[0] if drops else None


def run(loaded: BpfObject, program: str, frame: bytes, *, gso_size: int = 0) -> Outcome:
    """Run a program on a frame of the loopback device."""
    before = read_counters(loaded)
    context = skb_context(gso_size, len(frame))
    result = loaded.programs[program].test_run(frame, ctx=context, ifindex=LOOPBACK)
    return Outcome(Verdict(result.retval), result.data, gained(before, read_counters(loaded)))


def read_counters(loaded: BpfObject) -> Counters:
    """Counters of either object: slot -> name -> sum over the CPUs."""
    values = loaded.maps["counters"].per_cpu_all()
    reasons = enum_of(loaded, "ach_drop")
    names = [name for name in values.dtype.names or () if name not in _NOT_OF_ONE_PACKET]
    plain = {name: values[name].sum(axis=1) for name in names}
    drops = values["drops"].sum(axis=1)
    return {
        slot: {name: int(total[slot]) for name, total in plain.items()}
        | {
            name.removeprefix("ACH_DROP_"): int(drops[slot, number])
            for name, number in reasons.items()
            if name != "ACH_DROP_COUNT"
        }
        for slot in range(len(values))
    }


def gained(before: Counters, after: Counters) -> Counters:
    """What was counted in between, without the zeros."""
    differences = {
        slot: {name: count - before[slot][name] for name, count in counts.items()}
        for slot, counts in after.items()
    }
    return {
        slot: {name: count for name, count in counts.items() if count}
        for slot, counts in differences.items()
        if any(counts.values())
    }


def skb_context(gso_size: int, length: int) -> bytes | None:
    """The context of a GSO frame, or none."""
    if not gso_size:
        return None
    skb = np.zeros((), SK_BUFF)
    skb["gso_size"] = gso_size
    skb["gso_segs"] = -(-length // gso_size)
    return skb.tobytes()
