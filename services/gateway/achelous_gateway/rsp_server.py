"""Answers RSP requests from the route table, one batch of columns per message."""

import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from achelous_gateway.changes import ChangeLogs
from achelous_gateway.stats import Stats
from achelous_shared import rsp, rsp_batch, rsp_changes
from achelous_shared.names import VNI_MAX
from achelous_shared.route_following.table import RouteTable
from achelous_shared.rsp import Capability, Options, ReplyType, RspError
from achelous_shared.rsp_changes import Status
from achelous_shared.rsp_hash import Hashes

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
        changes: ChangeLogs,
        stats: Stats,
        *,
        mtu: int,
        whole: Callable[[], bool],
    ) -> None:
        """``whole``: whether the table was ever complete; until then nothing is known of a miss."""
        self._table = table
        self._stands = stands
        self._changes = changes
        self._stats = stats
        self._whole = whole
        found = np.zeros(1, rsp.REPLY)
        found["type"] = ReplyType.ROUTE
        found["length"] = _ADDRESS_BYTES
        found["mtu"] = mtu
        found["next_hop"][:, 10:12] = _V4_MAPPED
        self._template = found
        self._mtu = mtu
        self._options = Options(Capability.CHANGES | Capability.PUSH, mtu)

    def answer(self, requests: Sequence[bytes]) -> list[bytes]:
        """The reply to each of ``requests``: an entry for each one asked, in the same order.

        A question for changes may stand among them. To garbage, and before the table was first
        complete, a reply without entries: the asker
        need not wait for its deadline, and learns nothing.
        """
        asked = rsp_batch.decode_requests(requests)
        whole = self._whole()
        replies = self._answer_requests(asked, whole=whole)
        garbage = 0
        for at, head in enumerate(asked.heads):
            if head is None:
                answer = self._changed(requests[at], whole=whole)
                garbage += answer is None
                replies[at] = answer or replies[at]
        self._stats.rsp_garbage += garbage
        self._stats.rsp_requests += len(requests) - garbage
        return replies

    def routes(self, vnis: npt.ArrayLike, ips: npt.NDArray[np.uint8]) -> rsp.Entries:
        """Reply entries for those of these destinations (n,), (n, 16) that have a route."""
        reply = self._reply(rsp.requests(vnis, ips))
        found: rsp.Entries = reply[reply["type"] == ReplyType.ROUTE]
        return found

    def _answer_requests(self, asked: rsp_batch.Requests, *, whole: bool) -> list[bytes]:
        if not whole:
            heads = [head and head._replace(total=0) for head in asked.heads]
            return rsp_batch.encode_replies(heads, self._template[:0], self._options)
        self._stats.rsp_entries += len(asked.entries)
        reply = self._reply(asked.entries)
        offered = [head.options.mtu or self._mtu for head in asked.heads if head]
        if offered and min(offered) < self._mtu:
            counts = [head.total for head in asked.heads if head]
            reply["mtu"] = np.minimum(reply["mtu"], np.repeat(offered, counts))
        return rsp_batch.encode_replies(asked.heads, reply, self._options)

    def _changed(self, request: bytes, *, whole: bool) -> bytes | None:
        """The answer to a WATCH; None to garbage."""
        try:
            head, watched = rsp_changes.decode_watches(request)
        except RspError:
            return None
        entries = np.zeros(len(watched) if whole else 0, rsp_changes.CHANGES)
        columns = self._fill(entries, watched) if whole else []
        hashes = np.concatenate([np.zeros(0, np.uint32), *(found for found, _ in columns)])
        ages = np.concatenate([np.zeros(0, np.uint16), *(age for _, age in columns)])
        self._stats.rsp_watches += len(entries)
        self._stats.rsp_changes += len(hashes)
        agreed = self._options.agree(head.options)
        return rsp_changes.encode_changes(head.id, entries, hashes, ages, agreed)

    def _fill(
        self, entries: rsp.Entries, watched: rsp.Entries
    ) -> list[tuple[Hashes, rsp_changes.Ages]]:
        """Answer each VPC of ``watched`` in ``entries``; returns the columns of their changes."""
        for name in rsp_changes.WATCH.names or ():
            entries[name] = watched[name]
        stands = self._stands[np.minimum(watched["vni"], VNI_MAX + 1)]
        since = watched["since"].astype(np.uint64)
        revisions = np.maximum(stands - 1, 0).astype(np.uint64)
        entries["status"] = np.where(stands, Status.CHANGES, Status.UNKNOWN_VNI)
        entries["revision"] = revisions
        columns = []
        room, now_ns = rsp_changes.MAX_CHANGES, time.monotonic_ns()
        for at in np.flatnonzero(revisions > since).tolist():
            vni, stand = int(watched["vni"][at]), int(revisions[at])
            found = self._changes.since(vni, int(since[at]), stand, room, now_ns)
            if found is None:
                entries["status"][at] = Status.RECHECK
                self._stats.rsp_rechecks += 1
                continue
            entries["revision"][at], entries["count"][at] = found.revision, len(found.hashes)
            columns.append((found.hashes, found.ages_ms))
            room -= len(found.hashes)
        return columns

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
        stands = self._stands[np.minimum(vnis, VNI_MAX + 1)]
        reply["as_of"] = np.maximum(stands - 1, 0)
        missing = np.flatnonzero(rows < 0)
        if missing.size:
            self._stats.rsp_misses += missing.size
            self._deny(reply, missing)
        return reply

    def _deny(self, reply: rsp.Entries, missing: npt.NDArray[np.int64]) -> None:
        """Say at ``missing`` as of which revision there is no route, or that there is no VPC."""
        stands = self._stands[np.minimum(reply["vni"][missing], VNI_MAX + 1)]
        reply["type"][missing] = np.where(stands, ReplyType.NO_ROUTE, ReplyType.UNKNOWN_VNI)
        reply["revision"][missing] = reply["as_of"][missing]
        for field in ("length", "mtu", "next_hop", "mac", "identity"):
            reply[field][missing] = 0
