"""One run of a program on one frame, and what became of it."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

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
    before = totals(loaded)
    context = skb_context(gso_size, len(frame))
    result = loaded.programs[program].test_run(frame, ctx=context, ifindex=LOOPBACK)
    counted = gained(loaded, totals(loaded) - before)
    return Outcome(Verdict(result.retval), result.data, counted)


def read_counters(loaded: BpfObject) -> Counters:
    """Counters of either object: slot -> name -> sum over the CPUs."""
    names, counted = _names(loaded), totals(loaded).tolist()
    return {
        slot: {name: of_slot[column] for column, name in names.items()}
        for slot, of_slot in enumerate(counted)
    }


def totals(loaded: BpfObject) -> npt.NDArray[np.int64]:
    """Of all CPUs, (slots, counters): the plain ones, and then the drops by number."""
    values = loaded.maps["counters"].per_cpu_all()
    plain = [values[name].sum(axis=1) for name in _plain(loaded)]
    return np.column_stack((*plain, values["drops"].sum(axis=1))).astype(np.int64)


def _plain(loaded: BpfObject) -> list[str]:
    names = loaded.maps["counters"].value_dtype.names or ()
    return [name for name in names if name not in _NOT_OF_ONE_PACKET]


def _names(loaded: BpfObject) -> dict[int, str]:
    """Of the columns of `totals` that have one."""
    plain = _plain(loaded)
    reasons = enum_of(loaded, "ach_drop").items()
    drops = {
        len(plain) + number: name.removeprefix("ACH_DROP_")
        for name, number in reasons
        if name != "ACH_DROP_COUNT"
    }
    return dict(enumerate(plain)) | drops


def gained(loaded: BpfObject, difference: npt.NDArray[np.int64]) -> Counters:
    """Differences of `totals` by slot and name, without the zeros."""
    counters: Counters = {}
    names = _names(loaded)
    for slot, column in np.argwhere(difference).tolist():
        counters.setdefault(slot, {})[names[column]] = int(difference[slot, column])
    return counters


def skb_context(gso_size: int, length: int) -> bytes | None:
    """The context of a GSO frame, or none."""
    if not gso_size:
        return None
    skb = np.zeros((), SK_BUFF)
    skb["gso_size"] = gso_size
    skb["gso_segs"] = -(-length // gso_size)
    return skb.tobytes()
