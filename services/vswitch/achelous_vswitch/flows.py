"""Who moves how much: all sessions read twice, and the difference."""

import asyncio
import time
from typing import Any, Final

import numpy as np

from achelous_shared.messages import (
    FlowsReply,
    FlowsRequest,
    FlowView,
    decode_or_default,
    encode,
)
from achelous_vswitch.dataplane import Array, Table
from achelous_vswitch.show import initiator_first, session_view

_SLICE: Final = 16_384
_MIN_S, _MAX_S = 0.1, 10.0
_MAX_FLOWS: Final = 1000


class FlowMeter:
    """Answers `FlowsRequest`s."""

    def __init__(self, sessions: Table) -> None:
        self._sessions = sessions

    async def answer(self, data: bytes) -> bytes:
        """The reply to a request; one that is garbage gets the default's."""
        return encode(await self.measure(decode_or_default(data, FlowsRequest)))

    async def measure(self, request: FlowsRequest) -> FlowsReply:
        """The top sessions over the time that is asked for, between 0.1 and 10 s."""
        began = time.monotonic()
        keys, before = await self._read()
        await asyncio.sleep(min(max(request.seconds, _MIN_S), _MAX_S))
        elapsed = time.monotonic() - began
        later, now = await self._read()
        packets, octets = moved(keys, before, later, now)
        limit = min(max(1, request.limit), _MAX_FLOWS)
        top = np.argsort(octets.sum(axis=1), kind="stable")[::-1][:limit]
        return FlowsReply(
            flows=tuple(
                _view(later[i], now[i], packets[i] / elapsed, octets[i] * 8 / elapsed) for i in top
            ),
            total=len(later),
            seconds=elapsed,
        )

    async def _read(self) -> tuple[Array, Array]:
        """The whole table, slice by slice, so that other tasks have their turns."""
        keys, values = [], []
        cursor: bytes | None = None
        while True:
            some, held, cursor = self._sessions.scan(cursor, _SLICE)
            keys.append(some)
            values.append(held)
            if cursor is None:
                return np.concatenate(keys), np.concatenate(values)
            await asyncio.sleep(0)


def moved(keys: Array, before: Array, later: Array, now: Array) -> tuple[Array, Array]:
    """Packets and bytes (n, 2) by side that sessions ``later`` (n,) moved since ``before`` (m,).

    A session that is new, or has begun anew since, moved all that it has counted.
    """
    packets, octets = (now[field].astype(np.int64) for field in ("packets", "bytes"))
    places, earlier = _in_both(keys, later)
    same = before["created_ns"][earlier] == now["created_ns"][places]
    places, earlier = places[same], earlier[same]
    packets[places] -= before["packets"][earlier].astype(np.int64)
    octets[places] -= before["bytes"][earlier].astype(np.int64)
    return np.maximum(packets, 0), np.maximum(octets, 0)


def _in_both(keys: Array, later: Array) -> tuple[Array, Array]:
    """Where the keys that are in both lie in ``later``, and where in ``keys``."""
    raw = np.dtype(f"V{keys.dtype.itemsize}")
    old, new = (np.ascontiguousarray(table).view(raw) for table in (keys, later))
    _, places, earlier = np.intersect1d(new, old, return_indices=True)
    return places, earlier


def _view(key: Any, session: Any, packets: Array, bits: Array) -> FlowView:
    sides = initiator_first(session)
    return FlowView(
        session=session_view(key, session, time.monotonic_ns()),
        packets_per_s=(float(packets[sides[0]]), float(packets[sides[1]])),
        bits_per_s=(float(bits[sides[0]]), float(bits[sides[1]])),
    )
