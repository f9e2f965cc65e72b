"""Reconciling by difference: gateways say what changed in the VPCs of which entries are held.

Each tick asks one gateway about all VPCs of its group: 16 bytes each, and 32 in the answer at rest.
One that is silent does not hold it up: another one is asked as well. Of what changed the answer has
4-byte hashes, and only held entries of equal hash are asked about. A view moves on when all of them
were answered by a gateway that had that revision; else the next tick begins at the same place.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from achelous_shared import rsp, rsp_changes
from achelous_shared.rsp import Capability
from achelous_shared.rsp_changes import Changes, Status
from achelous_vswitch.fc import ForwardingCache
from achelous_vswitch.fc_hashes import Slots
from achelous_vswitch.gateways import Gateway
from achelous_vswitch.metrics import Metrics
from achelous_vswitch.negatives import Negatives
from achelous_vswitch.rsp_client import RspClient
from achelous_vswitch.verdicts import Question, Verdicts

_CHANGES: Final = int(Capability.CHANGES)
_LOST_NS: Final = 5_000_000_000
"""If every gateway has been behind for so long, the VPC's revisions themselves went back."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one gateway said: nothing, if there are no ``parts``."""

    gateway: Gateway
    asked_ns: int
    parts: list[Changes] = field(default_factory=list)


@dataclass(slots=True)
class Finding:
    """What one gateway's answer means for what is held."""

    asked_ns: int
    revisions: dict[int, int] = field(default_factory=dict)
    """Where each VPC's view may move on to."""
    slots: list[Slots] = field(default_factory=list)
    ages_ms: list[npt.NDArray[np.uint16]] = field(default_factory=list)

    def suspect(self, slots: Slots, ages_ms: npt.NDArray[np.uint16] | None = None) -> None:
        """Entries that are to be asked about, and how long ago they changed if that is known."""
        self.slots.append(slots)
        self.ages_ms.append(np.zeros(len(slots), np.uint16) if ages_ms is None else ages_ms)


class Delta:
    """Brings the cache from what it was true of to what gateways know now."""

    def __init__(
        self,
        cache: ForwardingCache,
        negatives: Negatives,
        client: RspClient,
        verdicts: Verdicts,
        metrics: Metrics,
    ) -> None:
        self._cache = cache
        self._negatives = negatives
        self._client = client
        self._verdicts = verdicts
        self._metrics = metrics

    async def tick(self, group: int, vnis: Iterable[int]) -> bool:
        """Ask once about these VPCs of a group of gateways. False if none can say what changed."""
        turn = self._client.in_turn(group)
        able = [gateway for gateway in turn if self._can(gateway)]
        pending = self._cache.views.begin(vnis)
        if not pending:
            return True
        heard, unknown = False, set(pending)
        async with self._client.hedged(able, lambda one: self._watch(one, pending)) as answers:
            async for answer in answers:
                for vni, status in (await self._take(answer, pending)).items():
                    heard = True
                    if status is not Status.UNKNOWN_VNI:
                        unknown.discard(vni)
                if not pending:
                    return True
        if heard:
            self._settle(pending, unknown)
        return bool(able) or not turn

    def _can(self, gateway: Gateway) -> bool:
        agreed = self._client.agreed(gateway)
        return agreed is None or bool(agreed.capabilities & _CHANGES)

    async def _watch(self, gateway: Gateway, pending: dict[int, int]) -> Answer:
        """Ask one gateway about what is ``pending`` now."""
        answer = Answer(gateway, time.monotonic_ns())
        asked = list(pending.items())
        for at in range(0, len(asked), rsp.MAX_ENTRIES):
            vnis, since = zip(*asked[at : at + rsp.MAX_ENTRIES], strict=True)
            watches = rsp_changes.watches(vnis, np.array(since, np.uint64))
            changes = await self._client.watch(gateway, watches)
            if changes is None:
                break
            answer.parts.append(changes)
        return answer

    async def _take(self, answer: Answer, pending: dict[int, int]) -> dict[int, Status]:
        """Act on an answer; what it settles leaves ``pending``. What it said of each VPC."""
        said: dict[int, Status] = {}
        for changes in answer.parts:
            finding = self._read(changes, answer.asked_ns, pending, said)
            for vni in finding.revisions:
                del pending[vni]
            await self._resolve(answer.gateway, finding)
        return said

    def _read(
        self, changes: Changes, asked_ns: int, pending: dict[int, int], said: dict[int, Status]
    ) -> Finding:
        finding = Finding(asked_ns)
        for entry, hashes, ages_ms in changes.each():
            vni, revision = int(entry["vni"]), int(entry["revision"])
            said[vni] = status = Status(int(entry["status"]))
            lags = status is Status.UNKNOWN_VNI or revision < int(entry["since"])
            if lags or vni not in pending:
                continue  # another one is asked, or has answered
            finding.revisions[vni] = revision
            if status is Status.RECHECK:
                finding.suspect(self._cache.of_vpc(vni))
                self._negatives.forget_vpc(vni)
                self._metrics.rechecks.inc()
            elif status is Status.GAP:
                finding.suspect(self._cache.newer(vni, int(entry["since"])))
            if len(hashes):
                slots, places = self._cache.changed(vni, hashes)
                if len(slots):
                    finding.suspect(slots, ages_ms[places])
                self._negatives.changed(vni, hashes)
        return finding

    async def _resolve(self, gateway: Gateway, finding: Finding) -> None:
        """Ask about the suspects, first the gateway that named them, and move the views on."""
        if finding.slots:
            slots, ages_ms = np.concatenate(finding.slots), np.concatenate(finding.ages_ms)
            slots, first = np.unique(slots, return_index=True)
            ages_ms = ages_ms[first]
            generations = self._cache.entries["generation"][slots]
            for at in range(0, len(slots), rsp.MAX_ENTRIES):
                part = slice(at, at + rsp.MAX_ENTRIES)
                question = Question(slots[part], generations[part], finding.asked_ns, ages_ms[part])
                for vni in await self._inquire(gateway, question, finding.revisions):
                    finding.revisions.pop(vni, None)
        for vni, revision in finding.revisions.items():
            self._cache.views.advance(vni, revision, finding.asked_ns)

    async def _inquire(
        self, gateway: Gateway, question: Question, revisions: dict[int, int]
    ) -> set[int]:
        """Ask about entries and act on the answers; the VPCs whose answers are not good enough."""
        entries = self._cache.entries
        vnis = entries["vni"][question.slots]
        asked = rsp.requests(vnis, entries["ip"][question.slots])
        replies = await self._client.ask(asked, gateway)
        if replies is None:
            return set(vnis.tolist())
        self._verdicts.take(question, replies)
        wanted = np.array([revisions.get(vni, 0) for vni in vnis.tolist()], np.uint64)
        return set(vnis[replies["as_of"].astype(np.uint64) < wanted].tolist())

    def _settle(self, pending: dict[int, int], unknown: set[int]) -> None:
        """What no gateway could confirm: gone if none knows the VPC, or if all stay behind."""
        now_ns = time.monotonic_ns()
        for vni in pending:
            view = self._cache.views.get(vni)
            if view is None:
                continue
            if view.behind_since_ns is None:
                view.behind_since_ns = now_ns
            if vni in unknown or now_ns - view.behind_since_ns > _LOST_NS:
                slots = self._cache.of_vpc(vni)
                self._cache.remove(slots)
                self._metrics.removed.labels("no route").inc(len(slots))
