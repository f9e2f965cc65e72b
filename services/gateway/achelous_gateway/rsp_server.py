"""Answers RSP requests from the route table, one batch of columns per message."""

import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from achelous_gateway.changes import ChangeLogs
from achelous_gateway.stats import Stats
from achelous_shared import rsp, rsp_batch, rsp_changes
from achelous_shared.records import fields_at, fields_of, offset_of
from achelous_shared.route_following.table import VALUE, RouteTable
from achelous_shared.rsp import Capability, MessageType, Options, ReplyType, RspError
from achelous_shared.rsp_changes import Status
from achelous_shared.rsp_hash import Hashes

_ADDRESS_BYTES: Final = 16
_KINDS: Final = [ReplyType.ROUTE, ReplyType.NO_ROUTE, ReplyType.UNKNOWN_VNI]

_ASKED: Final = f"V{rsp.REQUEST.itemsize}"
_ECHO: Final = fields_at(rsp.REPLY, asked=(_ASKED, 0))
_WATCHED: Final = f"V{rsp_changes.WATCH.itemsize}"
_WATCH_ECHO: Final = fields_at(rsp_changes.CHANGES, asked=(_WATCHED, 0))
_ANSWERS: Final = np.zeros(2, rsp_changes.CHANGES)
_ANSWERS["status"] = Status.UNKNOWN_VNI, Status.CHANGES
# A value's fields in the table and in a reply, in one order.
_HELD: Final = fields_of(VALUE, "vtep", "mac", "identity", "revision")
_TOLD: Final = fields_at(
    rsp.REPLY,
    vtep=(">u4", offset_of(rsp.REPLY, "next_hop") + _ADDRESS_BYTES - 4),
    mac=("V6", offset_of(rsp.REPLY, "mac")),
    identity=(">u2", offset_of(rsp.REPLY, "identity")),
    revision=(">u8", offset_of(rsp.REPLY, "revision")),
)

_NOTHING: Final = rsp.encode(MessageType.REPLY, 0, np.zeros(0, rsp.REPLY))

Stands = npt.NDArray[np.int64]
"""(VNI_MAX + 2,): the revision at which each VPC's table stands at least, plus one; 0 of a VNI that
is no VPC's. The last stands for numbers that are no VNI."""

Columns = tuple[Hashes, rsp_changes.Ages]


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
        # What is answered where there is a route, where there is none, and where there is no VPC.
        self._templates = np.zeros(len(_KINDS), rsp.REPLY)
        self._templates["type"] = _KINDS
        route = self._templates[:1]
        route["length"], route["mtu"] = _ADDRESS_BYTES, mtu
        route["next_hop"][:, 10:12] = 0xFF  # the next hop's address is IPv4
        self._mtu = mtu
        self._options = Options(Capability.CHANGES | Capability.PUSH | Capability.GAPS, mtu)

    def answer(self, requests: Sequence[bytes]) -> list[bytes]:
        """The reply to each of ``requests``: an entry for each one asked, in the same order.

        A question for changes may stand among them. To garbage, and before the table was first
        complete, a reply without entries: the asker
        need not wait for its deadline, and learns nothing.
        """
        asked = rsp_batch.decode_requests(requests)
        whole = self._whole()
        if any(asked.heads):
            replies = self._answer_requests(asked, whole=whole)
        else:
            replies = [_NOTHING] * len(requests)
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
            return rsp_batch.encode_replies(heads, self._templates[:0], self._options)
        self._stats.rsp_entries += len(asked.entries)
        reply = self._reply(asked.entries) if len(asked.entries) else self._templates[:0]
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
        if not whole:
            watched = watched[:0]
        agreed = self._options.agree(head.options)
        gaps = bool(agreed.capabilities & Capability.GAPS)
        entries, columns = self._changes_of(watched, gaps=gaps)
        hashes, ages = _joined(columns)
        self._stats.rsp_watches += len(entries)
        self._stats.rsp_changes += len(hashes)
        return rsp_changes.encode_changes(head.id, entries, hashes, ages, agreed)

    def _changes_of(self, watched: rsp.Entries, *, gaps: bool) -> tuple[rsp.Entries, list[Columns]]:
        """The answer for each VPC of ``watched``, and the columns of their changes.

        ``gaps``: the asker can be told of them; one that can not has to check everything.
        """
        stands = self._stands_of(watched["vni"])
        entries = _ANSWERS.take((stands > 0).view(np.int8))
        entries.view(_WATCH_ECHO)["asked"] = watched.view(_WATCHED)
        entries["revision"] = revisions = _revisions(stands)
        columns = []
        room, now_ns = rsp_changes.MAX_CHANGES, time.monotonic_ns()
        for at in (revisions > watched["since"]).nonzero()[0].tolist():
            vni, since = int(watched["vni"][at]), int(watched["since"][at])
            found = self._changes.since(vni, since, int(revisions[at]), room, now_ns)
            if found is None or (found.gap is not None and not gaps):
                entries["status"][at] = Status.RECHECK
                self._stats.rsp_rechecks += 1
                continue
            if found.gap is not None:
                entries["status"][at], entries["since"][at] = Status.GAP, found.gap
            entries["revision"][at], entries["count"][at] = found.revision, len(found.hashes)
            columns.append((found.hashes, found.ages_ms))
            room -= len(found.hashes)
        return entries, columns

    def _reply(self, asked: rsp.Entries) -> rsp.Entries:
        vnis = asked["vni"]
        rows = self._table.lookup(vnis, asked["key"])
        stands = self._stands_of(vnis)
        missing = rows < 0
        reply: rsp.Entries = self._templates.take(missing * (np.int8(1) + (stands == 0)))
        reply.view(_ECHO)["asked"] = asked.view(_ASKED)
        reply.view(_TOLD)[:] = self._table.values(rows).view(_HELD)
        reply["as_of"] = _revisions(stands)
        if missing.any():
            self._stats.rsp_misses += int(missing.sum())
            np.copyto(reply["revision"], reply["as_of"], where=missing)
        return reply

    def _stands_of(self, vnis: npt.NDArray[np.uint32]) -> Stands:
        """(n,) of any numbers (n,)."""
        return self._stands.take(vnis, mode="clip")


def _revisions(stands: Stands) -> npt.NDArray[np.uint64]:
    return np.maximum(stands, 1).view(np.uint64) - np.uint64(1)


def _joined(columns: Sequence[Columns]) -> Columns:
    """The columns of all VPCs, end to end."""
    if len(columns) == 1:
        return columns[0]
    return (
        np.concatenate([np.zeros(0, np.uint32), *(hashes for hashes, _ in columns)]),
        np.concatenate([np.zeros(0, np.uint16), *(ages for _, ages in columns)]),
    )
