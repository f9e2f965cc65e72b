"""Answers RSP requests from the route table, one batch of columns per message."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from achelous_gateway.stats import Stats
from achelous_gateway.table import RouteTable
from achelous_shared import rsp
from achelous_shared.names import VNI_MAX
from achelous_shared.rsp import ReplyType

_V4_MAPPED: Final = np.frombuffer(b"\xff\xff", np.uint8)
_ADDRESS_BYTES: Final = 16

Stands = npt.NDArray[np.int64]
"""(VNI_MAX + 2,): the revision at which each VPC's table stands at least, plus one; 0 of a VNI that
is no VPC's. The last stands for numbers that are no VNI."""


class RspServer:
    """Turns request bytes into reply bytes. Pure but for its counters."""

    def __init__(
        self,
        table: RouteTable,
        stands: Stands,
        stats: Stats,
        *,
        mtu: int,
        whole: Callable[[], bool],
    ) -> None:
        """``whole``: whether the table was ever complete; until then nothing is known of a miss."""
        self._table = table
        self._stands = stands
        self._stats = stats
        self._whole = whole
        found = np.zeros(1, rsp.REPLY)
        found["type"] = ReplyType.ROUTE
        found["length"] = _ADDRESS_BYTES
        found["mtu"] = mtu
        found["next_hop"][:, 10:12] = _V4_MAPPED
        self._template = found

    def answer(self, requests: Sequence[bytes]) -> list[bytes]:
        """The reply to each of ``requests``: an entry for each one asked, in the same order.

        To garbage, and before the table was first complete, a reply without entries: the asker
        need not wait for its deadline, and learns nothing.
        """
        asked = rsp.decode_requests(requests)
        heads = asked.heads
        garbage = heads.count(None)
        self._stats.rsp_garbage += garbage
        self._stats.rsp_requests += len(heads) - garbage
        if not self._whole():
            return rsp.encode_replies([head and (head[0], 0) for head in heads], self._template[:0])
        self._stats.rsp_entries += len(asked.entries)
        return rsp.encode_replies(heads, self._reply(asked.entries))

    def _reply(self, asked: rsp.Entries) -> rsp.Entries:
        vnis = asked["vni"]
        rows = self._table.lookup(vnis, asked["key"])
        values = self._table.values(rows)
        reply = self._template.repeat(len(asked))
        echo = reply.view(np.uint8).reshape(-1, rsp.REPLY.itemsize)
        echo[:, : rsp.REQUEST.itemsize] = asked.view(np.uint8).reshape(-1, rsp.REQUEST.itemsize)
        reply["revision"] = values["revision"]
        vteps = np.ascontiguousarray(values["vtep"])
        reply["next_hop"][:, 12:] = vteps.view(np.uint8).reshape(-1, 4)
        reply["mac"] = values["mac"]
        reply["identity"] = values["identity"]
        missing = np.flatnonzero(rows < 0)
        if missing.size:
            self._stats.rsp_misses += missing.size
            self._deny(reply, missing)
        return reply

    def _deny(self, reply: rsp.Entries, missing: npt.NDArray[np.int64]) -> None:
        """Say at ``missing`` as of which revision there is no route, or that there is no VPC."""
        stands = self._stands[np.minimum(reply["vni"][missing], VNI_MAX + 1)]
        reply["type"][missing] = np.where(stands, ReplyType.NO_ROUTE, ReplyType.UNKNOWN_VNI)
        reply["revision"][missing] = np.maximum(stands - 1, 0)
        for field in ("length", "mtu", "next_hop", "mac", "identity"):
            reply[field][missing] = 0
