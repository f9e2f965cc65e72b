"""A packet followed from host to host: each is asked what it would do, and so where to ask next."""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address
from typing import Final
from uuid import UUID

import msgspec
from sqlalchemy import select

from achelous_controller.api.context import Services
from achelous_controller.domain.errors import Conflict, NoAnswer, Refused
from achelous_controller.store.database import Record
from achelous_controller.store.schema import (
    gateways,
    hosts,
    security_group_rules,
    security_groups,
)
from achelous_shared import messages, subjects
from achelous_shared.bus import BusError
from achelous_shared.frames import summary
from achelous_shared.messages import TraceReply, TraceRequest, TraceStep

ANSWER_S: Final = 10.0
"""An agent loads its programs a second time for the first trace."""
_MAX_HOPS: Final = 4
"""A host, a gateway, a host; the next would be a loop."""


class TraceHop(messages.Value, frozen=True, kw_only=True):
    """What the packet meets at one host or gateway; see `TraceReply` for ``verdict``."""

    kind: str
    """host or gateway."""
    id: UUID
    name: str
    arrived: str
    """The frame as it came in, in words."""
    verdict: str
    reason: str = ""
    words: str = ""
    steps: tuple[TraceStep, ...] = ()
    to_vnic: UUID | None = None
    to_vtep: str = ""
    summary: str = ""
    frame: bytes = b""
    """The frame as it leaves, and in words; none where it is dropped."""


class Trace(messages.Value, frozen=True, kw_only=True):
    """Every hop in order, and how the last one ended it.

    ``outcome``: the last hop's verdict, or lost (sent to a VTEP that nobody has), or unknown (a hop
    did not answer, or the packet was still on its way after four). ``accepted``: the packet
    reaches its receiver, or who answers in its place.
    """

    outcome: str
    accepted: bool
    reason: str = ""
    words: str = ""
    to_vnic: UUID | None = None
    hops: tuple[TraceHop, ...]


class Walk:
    """Follows packets."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def start(self, host: Record, vnic_id: UUID, frame: bytes) -> Trace:
        """The trace of a frame that the guest of a vNIC on ``host`` sends.

        Raises `NoAnswer`, `Conflict` or `Unavailable` where not even this host can tell.
        """
        request = TraceRequest(frame=frame, vnic_id=vnic_id)
        hops = [await self._hop("host", host, request)]
        while hops[-1][1].verdict == "sent" and len(hops) < _MAX_HOPS:
            found = await self._at(hops[-1][1].to_vtep)
            if found is None:
                return _trace(hops, "lost", words="no host or gateway of the fleet has this VTEP")
            try:
                hops.append(await self._hop(*found, TraceRequest(frame=hops[-1][1].frame)))
            except Refused as error:
                return _trace(hops, "unknown", words=error.detail)
        if hops[-1][1].verdict == "sent":
            return _trace(hops, "unknown", words=f"still on its way after {_MAX_HOPS} hops")
        last = hops[-1][1]
        return _trace(hops, last.verdict, last.reason, last.words)

    async def _hop(
        self, kind: str, found: Record, request: TraceRequest
    ) -> tuple[TraceHop, TraceReply]:
        service = "vswitch" if kind == "host" else kind
        reply = await self._ask(subjects.trace(service, found.id), f"{kind} {found.name}", request)
        hop = TraceHop(
            kind=kind,
            id=found.id,
            name=found.name,
            arrived=summary(request.frame),
            verdict=reply.verdict,
            reason=reply.reason,
            words=reply.words,
            steps=await self._with_groups(reply.steps),
            to_vnic=reply.to_vnic,
            to_vtep=reply.to_vtep,
            summary=reply.summary,
            frame=reply.frame,
        )
        return hop, reply

    async def _ask(self, subject: str, who: str, request: TraceRequest) -> TraceReply:
        try:
            bus = self._services.connected_bus()
            answer = await bus.request(subject, messages.encode(request), timeout=ANSWER_S)
            reply = messages.decode(answer, TraceReply)
        except (BusError, messages.BadMessage) as error:
            raise NoAnswer(f"the {who} gave no answer in {ANSWER_S:g} s: {error}") from None
        if reply.error is not None:
            raise Conflict(f"the {who} cannot trace this: {reply.error}")
        return reply

    async def _at(self, vtep: str) -> tuple[str, Record] | None:
        """Who has this address."""
        async with self._services.database.read() as connection:
            for kind, table in (("host", hosts), ("gateway", gateways)):
                query = select(table).where(table.c.vtep == IPv4Address(vtep))
                found = (await connection.execute(query)).one_or_none()
                if found is not None:
                    return kind, found
        return None

    async def _with_groups(self, steps: tuple[TraceStep, ...]) -> tuple[TraceStep, ...]:
        """The steps, rules with the security groups that they are of."""
        groups = await self._groups(step.rule for step in steps if step.rule is not None)

        def completed(step: TraceStep) -> TraceStep:
            if step.rule not in groups:
                return step
            group, name = groups[step.rule]
            return msgspec.structs.replace(step, group=group, group_name=name)

        return tuple(map(completed, steps))

    async def _groups(self, rules: Iterable[UUID]) -> Mapping[UUID | None, tuple[UUID, str]]:
        wanted = set(rules)
        if not wanted:
            return {}
        query = (
            select(security_group_rules.c.id, security_groups.c.id, security_groups.c.name)
            .join(security_groups, security_groups.c.id == security_group_rules.c.security_group_id)
            .where(security_group_rules.c.id.in_(wanted))
        )
        async with self._services.database.read() as connection:
            rows = (await connection.execute(query)).all()
        return {rule: (group, name) for rule, group, name in rows}


def _trace(
    hops: list[tuple[TraceHop, TraceReply]], outcome: str, reason: str = "", words: str = ""
) -> Trace:
    return Trace(
        outcome=outcome,
        accepted=outcome in ("delivered", "answered", "absorbed"),
        reason=reason,
        words=words,
        to_vnic=hops[-1][0].to_vnic,
        hops=tuple(hop for hop, _ in hops),
    )
