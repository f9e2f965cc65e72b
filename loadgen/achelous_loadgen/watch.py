"""Waiting until every live gateway answers as it should: many destinations, few questions."""

import asyncio
import itertools
import secrets
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import numpy as np

from achelous_loadgen.awaited import Group, Targets, Wait, tails, waits
from achelous_loadgen.gateways import GatewayClient, Reports
from achelous_shared import messages, rsp, subjects
from achelous_shared.bus import Bus
from achelous_shared.bus_roles import Role
from achelous_shared.messages import BadMessage, RouteDelta
from achelous_shared.nats_wire import Received
from achelous_shared.responder import Outlet
from achelous_shared.routes import REVISION, MalformedTable, unpack
from achelous_shared.rsp import MessageType, RspError

_PACE_S: Final = 0.002
"""After a question to a gateway so long until its next: what comes meanwhile is asked together."""
_UNHEARD_S: Final = 0.05
"""What no delta has named is asked for so often: a gateway may have it from a snapshot."""
_ANYWAY_EVERY: Final = 10
"""In each of so many of these turns all is asked for: a report may have been lost."""
_ANSWER_S: Final = 1.0
_QUESTIONS: Final = 32
"""To one gateway at once."""
_REPORTS_BEHIND: Final = 65_536
"""Destinations that wait for a gateway's report; others are asked for anyway."""
_REMEMBERED_S: Final = 2.0


class _Named:
    """Destinations of a VPC that deltas name: who waits for them, and what was named lately.

    Its delta may be on the bus before the API's reply is here, which says what to wait for.
    """

    def __init__(self) -> None:
        self._ones: dict[int, list[Wait]] = {}
        self._many: dict[int, Wait] = {}
        self._revision = 0
        self._young: set[int] = set()
        self._old: set[int] = set()
        self._since = time.monotonic()

    def enter(self, wait: Wait) -> int | None:
        """Wait; the revision by which gateways have it, if all of it was named already."""
        if len(wait.tails) == 1:
            self._ones.setdefault(wait.tails[0], []).append(wait)
        else:
            self._many.update(dict.fromkeys(wait.tails, wait))
        named = not set(wait.tails) - self._young - self._old
        return self._revision if named else None

    def leave(self, wait: Wait) -> None:
        """Wait no more, and forget who named it: that was this change, and not the next."""
        if len(wait.tails) == 1:
            [tail] = wait.tails
            self._ones[tail].remove(wait)
            if not self._ones[tail]:
                del self._ones[tail]
            self._young.discard(tail)
            self._old.discard(tail)
            return
        for tail in wait.tails:
            if self._many.get(tail) is wait:
                del self._many[tail]

    def name(self, named: list[int], revision: int) -> list[Wait]:
        """Those who wait for what a delta names."""
        now = time.monotonic()
        if now - self._since > _REMEMBERED_S:
            self._young, self._old, self._since = set(), self._young, now
        self._young.update(named)
        self._revision = revision
        found = [wait for tail in self._ones.keys() & named for wait in self._ones[tail]]
        if self._many:
            found += {wait for wait in map(self._many.get, named) if wait is not None}
        return found


@dataclass(slots=True)
class _Gateway:
    """What is known of one gateway, and what it is to be asked."""

    id: UUID
    number: int
    line: bytes
    """Its subject and that of its replies."""
    reached: dict[int, int] = field(default_factory=dict)
    """The revision of each VPC that it last reported."""
    behind: dict[int, "deque[tuple[int, Wait]]"] = field(default_factory=dict)
    """Who waits for it to report a revision of their VPC, as deltas named them."""
    ready: dict[Wait, None] = field(default_factory=dict)
    """What is to be asked for."""
    questions: int = 0
    """Not answered yet."""
    asked_at: float = 0.0
    timer: asyncio.TimerHandle | None = None

    def place(self, wait: Wait, revision: int) -> bool:
        """Have it asked for when the gateway has this revision; True: it has."""
        if self.reached.get(wait.vni, 0) >= revision:
            self.ready[wait] = None
            return True
        self.behind.setdefault(wait.vni, deque(maxlen=_REPORTS_BEHIND)).append((revision, wait))
        return False

    def reach(self, vni: int, revision: int) -> bool:
        """It reports this revision; True: something is to be asked for."""
        self.reached[vni] = revision
        behind = self.behind.get(vni)
        while behind and behind[0][0] <= revision:
            self.ready[behind.popleft()[1]] = None
        return bool(self.ready)


@dataclass(slots=True)
class _Question:
    gateway: _Gateway
    waits: list[Wait]
    bytes: int
    """Of the reply."""
    asked_at: float


class Watch:
    """Asks every gateway for what is awaited, many in a question, until it agrees.

    A delta on the bus says by which revision a destination changes, and a gateway's report which
    one it has: then it is asked. With much on its way it reports each 5 ms, and so late at most is
    what is measured. What no delta has named is asked for each 50 ms.
    """

    def __init__(self, gateways: Sequence[GatewayClient], reports: Reports, bus: Bus) -> None:
        self._inbox = f"{subjects.inbox(Role.VSWITCH)}.watch.{secrets.token_hex(8)}"
        self._gateways = [
            _Gateway(one.id, number, f"{subjects.rsp(one.id)} {self._inbox}".encode())
            for number, one in enumerate(gateways)
        ]
        self._by_id = {gateway.id: gateway for gateway in self._gateways}
        self._reports = reports
        self._bus = bus
        self._outlet = Outlet()
        self._vpcs: dict[int, _Named] = {}
        self._waits: dict[Wait, None] = {}
        self._live = 0
        """A bit for each gateway."""
        self._numbers = itertools.count(1)
        self._questions: dict[int, _Question] = {}

    async def until_met(self, targets: Targets, timeout: float) -> float:
        """`time.perf_counter()` when the last live gateway agreed on all. Raises TimeoutError."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        group = Group(0, now + timeout, loop.create_future())
        parts = waits(targets, group, len(self._gateways))
        vpc = self._vpc(targets.vni)
        for wait in parts:
            wait.since = now
            self._waits[wait] = None
            revision = vpc.enter(wait)
            if revision is not None:
                self._place(wait, revision)
        try:
            return await group.done
        except TimeoutError:
            missing = [
                sum(wait.missing(gateway.number) for wait in parts) for gateway in self._gateways
            ]
            raise TimeoutError(
                f"after {timeout:g} s gateways lack {missing} of {len(targets)} changes"
                f" in VNI {targets.vni}"
            ) from None
        finally:
            for wait in parts:
                self._waits.pop(wait, None)
                vpc.leave(wait)
                wait.open = 0

    async def run(self) -> None:
        """Ask until cancelled."""
        limit = self._bus.max_payload
        self._reports.told = self._on_report
        async with asyncio.TaskGroup() as tasks:
            for subject, reaction, outlet in (
                (subjects.ALL_ROUTES, self._on_deltas, None),
                (self._inbox, self._on_replies, self._outlet),
            ):
                tasks.create_task(
                    self._bus.react(subject, reaction, max_payload=limit, outlet=outlet)
                )
            tasks.create_task(self._sweep())

    def _vpc(self, vni: int) -> _Named:
        vpc = self._vpcs.get(vni)
        if vpc is None:
            vpc = self._vpcs[vni] = _Named()
        return vpc

    def _on_deltas(self, received: Received) -> tuple[()]:
        for data in received.payloads:
            with suppress(BadMessage, MalformedTable):
                delta = messages.decode(data, RouteDelta)
                named = tails(unpack(delta.entries)["ip"])
                for wait in self._vpc(delta.vni).name(named, delta.revision):
                    self._place(wait, delta.revision)
        return ()

    def _place(self, wait: Wait, revision: int) -> None:
        wait.named = True
        for gateway in self._gateways:
            if gateway.place(wait, revision):
                self._tell(gateway)

    def _on_report(self, gateway_id: UUID, revisions: bytes) -> None:
        gateway = self._by_id.get(gateway_id)
        if gateway is None:
            return
        if not self._live >> gateway.number & 1:
            self._note_who_is_live()
        for vni, revision in np.frombuffer(revisions, REVISION).tolist():
            if gateway.reach(vni, revision):
                self._tell(gateway)

    def _tell(self, gateway: _Gateway) -> None:
        """Ask a gateway for what is ready: at once, or with what comes soon after a question."""
        if gateway.timer is not None:
            return
        loop = asyncio.get_running_loop()
        early = gateway.asked_at + _PACE_S - loop.time()
        gateway.timer = loop.call_later(max(0.0, early), self._ask, gateway)

    def _ask(self, gateway: _Gateway) -> None:
        now = asyncio.get_running_loop().time()
        gateway.timer, gateway.asked_at = None, now
        bit = 1 << gateway.number
        questions: list[tuple[bytes, bytes]] = []
        ready = [wait for wait in gateway.ready if wait.open & bit]
        gateway.ready.clear()
        while ready and gateway.questions < _QUESTIONS:
            count = total = 0
            for wait in ready:
                if total + len(wait.tails) > rsp.MAX_ENTRIES:
                    break
                count, total = count + 1, total + len(wait.tails)
            asked, ready = ready[:count], ready[count:]
            questions.append((gateway.line, self._question(gateway, asked, total, now)))
        gateway.ready.update(dict.fromkeys(ready))
        self._outlet.publish(questions)

    def _question(self, gateway: _Gateway, asked: list[Wait], total: int, now: float) -> bytes:
        number = next(self._numbers) & 0xFFFFFFFF
        expected = rsp.HEADER_BYTES + total * rsp.REPLY.itemsize
        self._questions[number] = _Question(gateway, asked, expected, now)
        gateway.questions += 1
        body = b"".join([wait.request for wait in asked])
        return rsp.header(MessageType.REQUEST, number, total, len(body), rsp.NO_OPTIONS) + body

    def _on_replies(self, received: Received) -> tuple[()]:
        now = time.perf_counter()
        for data in received.payloads:
            with suppress(RspError):
                self._on_reply(data, now)
        return ()

    def _on_reply(self, data: bytes, now: float) -> None:
        question = self._questions.pop(rsp.read_header(data, MessageType.REPLY).id, None)
        if question is None:
            return
        gateway = question.gateway
        gateway.questions -= 1
        if gateway.ready:
            self._tell(gateway)
        if len(data) != question.bytes:
            return
        at = rsp.HEADER_BYTES
        for wait in question.waits:
            end = at + len(wait.tails) * rsp.REPLY.itemsize
            if wait.open:
                wait.take(gateway.number, data[at:end])
                self._settle(wait, now)
            at = end

    def _settle(self, wait: Wait, now: float) -> None:
        """Note it if all live gateways have met it."""
        if self._live and not wait.open & self._live and self._waits.pop(wait, 0) is None:
            wait.group.met(now)

    def _note_who_is_live(self) -> None:
        live = sum(
            1 << gateway.number for gateway in self._gateways if self._reports.live(gateway.id)
        )
        if live != self._live:
            self._live = live
            for wait in list(self._waits):
                self._settle(wait, time.perf_counter())

    async def _sweep(self) -> None:
        """Let go of what took too long, and ask for what nothing else would have asked for."""
        loop = asyncio.get_running_loop()
        for turn in itertools.count():
            await asyncio.sleep(_UNHEARD_S)
            now = loop.time()
            self._note_who_is_live()
            self._forget_questions(now - _ANSWER_S)
            anyway = turn % _ANYWAY_EVERY == 0
            for wait in list(self._waits):
                if wait.group.deadline <= now:
                    wait.group.expire()
                elif (anyway or not wait.named) and wait.since <= now - _UNHEARD_S:
                    for gateway in self._gateways:
                        gateway.ready[wait] = None
            for gateway in self._gateways:
                if gateway.ready:
                    self._tell(gateway)

    def _forget_questions(self, before: float) -> None:
        """Those asked before then are not answered any more."""
        for number, question in list(self._questions.items()):
            if question.asked_at > before:
                return  # they are in order
            question.gateway.questions -= 1
            del self._questions[number]
