"""Asking the controller at which revisions VPCs are."""

from typing import Final

from achelous_shared import messages, subjects
from achelous_shared.bus import Bus
from achelous_shared.messages import RevisionsReply, RevisionsRequest
from achelous_shared.routes import REVISION, Routes, unpack

_TIMEOUT_S: Final = 5.0


class NotInStep(Exception):
    """The comparison came to no end; to be tried again."""


async def read_revisions(bus: Bus, after: int, limit: int) -> tuple[Routes, bool]:
    """`routes.REVISION` of up to ``limit`` VPCs with VNIs above ``after``, and whether that is all.

    Raises `BusError`, `BadMessage`, `MalformedTable` or `NotInStep`.
    """
    request = messages.encode(RevisionsRequest(after=after, limit=limit))
    data = await bus.request(subjects.SNAPSHOT_REVISIONS, request, timeout=_TIMEOUT_S)
    reply = messages.decode(data, RevisionsReply)
    if reply.error is not None:
        raise NotInStep(f"the controller says: {reply.error}")
    return unpack(reply.revisions, REVISION), reply.done
