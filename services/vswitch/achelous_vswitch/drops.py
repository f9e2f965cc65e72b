"""Dropped packets that an operator can look at: the latest samples, kept as one packed array."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import numpy as np

from achelous_shared.frames import summary
from achelous_shared.messages import (
    DropsReply,
    DropsRequest,
    DropView,
    decode_or_default,
    encode,
)
from achelous_vswitch.agent_state import AgentState
from achelous_vswitch.classifier import Rules
from achelous_vswitch.dataplane import Array
from achelous_vswitch.rule_book import rule_ids

_READ: Final = 4096
_MAX_REPLY: Final = 1000
"""Samples of one reply: about 300 KB."""
_NOBODY: Final = b"\0" * 16


class Samples:
    """The last ``limit`` samples, numbered from 1 in the order of their coming.

    Each is kept with the vNIC that its slot was bound to when it was read: the slot may have
    changed hands when somebody asks.
    """

    def __init__(self, dtype: np.dtype[Any], limit: int) -> None:
        self._kept = np.zeros(limit, dtype)
        self._owners = np.zeros((limit, 16), np.uint8)
        self.count = 0
        """Samples that ever came: the number of the latest."""

    def add(self, samples: Array, owners: Array) -> None:
        """Keep samples (n,), and the ids of their vNICs (n, 16), zeros where there is none."""
        limit = len(self._kept)
        newest = slice(max(0, len(samples) - limit), None)
        places = np.arange(self.count, self.count + len(samples))[newest] % limit
        self._kept[places] = samples[newest]
        self._owners[places] = owners[newest]
        self.count += len(samples)

    def after(self, number: int, limit: int, owner: bytes | None) -> tuple[list[int], int]:
        """Numbers of up to ``limit`` samples above ``number``, and how many are gone of those.

        Below 0: the latest ones. ``owner``: only those of this vNIC, 16 bytes.
        """
        oldest = max(1, self.count - len(self._kept) + 1)
        first = oldest if number < 0 else max(number + 1, oldest)
        numbers = np.arange(first, self.count + 1)
        if owner is not None:
            wanted = np.frombuffer(owner, np.uint8)
            owners = self._owners[(numbers - 1) % len(self._kept)]
            numbers = numbers[(owners == wanted).all(axis=1)]
        missed = 0 if number < 0 else max(0, oldest - number - 1)
        chosen = numbers[-limit:] if number < 0 else numbers[:limit]
        return chosen.tolist(), missed

    def __getitem__(self, number: int) -> tuple[Any, bytes]:
        """A sample and the id of its vNIC."""
        place = (number - 1) % len(self._kept)
        return self._kept[place], self._owners[place].tobytes()


class DropWatch:
    """Reads the ring of samples, and answers `DropsRequest`s."""

    def __init__(self, state: AgentState, limit: int) -> None:
        self._state = state
        self.samples = Samples(state.dataplane.samples.dtype, limit)

    async def run(self) -> None:
        """Read samples until cancelled."""
        ring = self._state.dataplane.samples
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(ring.fd, ready.set)
        try:
            while True:
                await ready.wait()
                ready.clear()
                self.take(ring.read(_READ))
        finally:
            loop.remove_reader(ring.fd)

    def take(self, samples: Array) -> None:
        """Keep samples (n,), with the vNICs that their slots are bound to now."""
        self.samples.add(samples, self._owners(samples))

    async def answer(self, data: bytes) -> bytes:
        """The reply to a request; one that is garbage gets the default's."""
        self.take(self._state.dataplane.samples.read(_READ))
        return encode(self.reply(decode_or_default(data, DropsRequest)))

    def reply(self, request: DropsRequest) -> DropsReply:
        """The samples that are asked for, and the counts."""
        limit = min(max(1, request.limit), _MAX_REPLY)
        owner = request.vnic_id.bytes if request.vnic_id else None
        numbers, missed = self.samples.after(request.after, limit, owner)
        more = len(numbers) == limit and request.after >= 0
        sets = self._state.rule_sets() if numbers else {}
        return DropsReply(
            samples=tuple(self._view(number, sets) for number in numbers),
            next=numbers[-1] if more else self.samples.count,
            more=more,
            missed=missed,
            lost=self._lost(),
            counts=self._counts(request.vnic_id),
        )

    def _owners(self, samples: Array) -> Array:
        """The ids (n, 16) of the vNICs in the slots of ``samples``, if they still are."""
        ports = self._state.dataplane.ports
        table = np.zeros((len(ports), 16), np.uint8)
        for port, vnic_id in self._state.vnics():
            table[port.slot] = np.frombuffer(vnic_id.bytes, np.uint8)
        slots = samples["slot"]
        same = ports["generation"][slots] == samples["generation"]
        return np.where(same[:, None], table[slots], np.uint8(0))

    def _view(self, number: int, sets: Mapping[int, Rules]) -> DropView:
        sample, owner = self.samples[number]
        rules = sets.get(int(sample["rule_set"]))
        [rule] = rule_ids(rules, [int(sample["rule"])]) if rules else [None]
        frame = sample["frame"][: int(sample["kept"])].tobytes()
        reasons, reason = self._state.dataplane.drop_reasons, int(sample["reason"])
        return DropView(
            number=number,
            at=time.time() - (time.monotonic_ns() - int(sample["at_ns"])) / 1e9,
            vnic_id=None if owner == _NOBODY else UUID(bytes=owner),
            reason=reasons[reason] if reason < len(reasons) else f"reason {reason}",
            rule=rule,
            direction="underlay" if sample["underlay"] else "guest",
            length=int(sample["length"]),
            summary=summary(frame),
            frame=frame,
        )

    def _counts(self, vnic_id: UUID | None) -> dict[str, int]:
        ports = self._state.applier.ports
        if vnic_id is None or ports is None:
            return self._state.host_drops()
        totals = ports.totals()
        slots = [port.slot for port, owner in self._state.vnics() if owner == vnic_id]
        return self._state.drops_by_reason(totals["drops"][slots].sum(axis=0))

    def _lost(self) -> int:
        ports = self._state.applier.ports
        return 0 if ports is None else int(ports.host_totals()["samples_lost"])
