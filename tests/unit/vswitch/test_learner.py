"""What is asked for, and what is done with the answers; the gateway is a function here."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast
from uuid import UUID

import numpy as np
import pytest
from background import running
from vswitch_memory import MemoryEvents, layout, memory_dataplane

from achelous_lab.waiting import wait_until
from achelous_shared import rsp
from achelous_shared.routes import ip_bytes
from achelous_vswitch.dataplane import Array, Dataplane
from achelous_vswitch.fc import ForwardingCache
from achelous_vswitch.gateways import Gateway
from achelous_vswitch.learner import GATHER_S, Learner
from achelous_vswitch.metrics import Metrics
from achelous_vswitch.negatives import Negatives
from achelous_vswitch.reconcile import Reconciler
from achelous_vswitch.rsp_client import RspClient
from achelous_vswitch.settings import VswitchSettings

VNI = 9


class NoClient(RspClient):
    """Nobody is asked."""

    def __init__(self) -> None:
        pass

    def groups_of(self, vnis: Array) -> Array:
        return np.zeros(len(vnis), np.uint8)


@dataclass
class Parts:
    """A learner and a reconciler over one cache in memory."""

    dataplane: Dataplane = field(default_factory=lambda: memory_dataplane(fc=64))

    per_vnic: int = 1000

    def __post_init__(self) -> None:
        settings = VswitchSettings(
            nats_url="nats://nowhere", host_id=UUID(int=1), max_fc_per_vnic=self.per_vnic
        )
        self.cache = ForwardingCache(self.dataplane.fc, self.dataplane.fc_index, rest_s=0)
        self.dataplane.config["vtep"] = 1
        client, metrics = NoClient(), Metrics()
        self.negatives = Negatives(self.cache.views, settings.negative_s)
        common = (client, settings, metrics)
        self.learner = Learner(self.dataplane, self.cache, self.negatives, *common)
        self.reconciler = Reconciler(self.cache, self.negatives, self.dataplane.config, *common)

    def learn(self, *numbers: int, vtep: int = 2, revision: int = 1) -> None:
        self.learner.take(answers(self.learner.select(events(*numbers), 0), vtep, revision), 0)


@pytest.fixture
def parts() -> Parts:
    return Parts()


def events(*numbers: int, port: int = 1) -> Array:
    queue = np.zeros(len(numbers), layout("ach_learn_event"))
    queue["vni"], queue["port"] = VNI, port
    for event, number in zip(queue, numbers, strict=True):
        event["ip"] = np.frombuffer(ip_bytes(f"10.0.{number // 256}.{number % 256}"), np.uint8)
    return queue


def answers(asked: rsp.Entries, vtep: int, revision: int) -> rsp.Entries:
    """A route to this VTEP for each entry, or with VTEP 0 none."""
    replies = np.zeros(len(asked), rsp.REPLY)
    for name in rsp.REQUEST.names or ():
        replies[name] = asked[name]
    replies["type"] = rsp.ReplyType.ROUTE if vtep else rsp.ReplyType.NO_ROUTE
    replies["revision"], replies["mtu"] = revision, 1500
    replies["next_hop"][:, 10:12] = 0xFF
    replies["next_hop"][:, 15] = vtep
    return replies


def test_each_destination_is_asked_for_once_at_a_time(parts: Parts) -> None:
    assert len(parts.learner.select(events(1, 2, 1, 1), now=0)) == 2
    assert len(parts.learner.select(events(1, 2, 3), now=0)) == 1


def test_routes_are_kept_and_their_absence_is_remembered(parts: Parts) -> None:
    parts.learn(1)
    parts.learn(2, vtep=0)
    assert len(parts.cache) == 1
    assert len(parts.negatives) == 1


def test_an_answer_to_an_old_question_does_not_touch_a_route_that_changed_since(
    parts: Parts,
) -> None:
    parts.learn(1, vtep=2, revision=1)
    question = parts.reconciler.next_question()
    assert question is not None
    asked = parts.cache.entries[question.slots].copy()
    parts.cache.remove(question.slots)
    parts.learner.take(answers(rsp.requests(asked["vni"], asked["ip"]), 3, 2), 0)
    late = answers(rsp.requests(asked["vni"], asked["ip"]), 0, 0)
    parts.reconciler.take(question, late)
    assert parts.cache.entries["vtep"][parts.cache.used()].tolist() == [3]


@pytest.mark.parametrize(("vtep", "left"), [(2, [2]), (3, [3]), (0, []), (1, [])])
def test_a_check_confirms_changes_or_removes(parts: Parts, vtep: int, left: list[int]) -> None:
    parts.learn(1, vtep=2, revision=1)
    question = parts.reconciler.next_question()
    assert question is not None
    asked = parts.cache.entries[question.slots]
    parts.reconciler.take(question, answers(rsp.requests(asked["vni"], asked["ip"]), vtep, 2))
    assert parts.cache.entries["vtep"][parts.cache.used()].tolist() == left
    assert (parts.cache.unconfirmed(question.asked_ns - 1) == 0).all()


def test_what_is_being_asked_about_is_not_asked_about_again(parts: Parts) -> None:
    parts.learn(1, 2)
    assert parts.reconciler.next_question() is not None
    parts.reconciler.begin_scan()
    assert parts.reconciler.next_question() is None


def test_a_vnic_that_has_enough_learns_no_more_and_leaves_the_others_theirs() -> None:
    parts = Parts(per_vnic=5)
    for _ in range(3):
        asked = parts.learner.select(events(*range(1, 20), port=1), 0)
        parts.learner.take(answers(asked, 2, 1), 0)
        parts.learner._asking.clear()
    assert parts.cache.owned_by(1) == 5
    assert len(parts.learner.select(events(40, port=2), 0)) == 1
    parts.cache.remove(parts.cache.used()[:2])
    assert len(parts.learner.select(events(*range(50, 60), port=1), 0)) == 2


def test_nothing_is_asked_of_a_vpc_that_is_programmed_ahead(parts: Parts) -> None:
    ahead: set[int] = set()
    learner = Learner(
        parts.dataplane, parts.cache, parts.negatives, NoClient(),
        VswitchSettings(nats_url="nats://nowhere", host_id=UUID(int=1)), Metrics(), lambda: ahead,
    )  # fmt: skip
    assert len(learner.select(events(1), 0)) == 1
    ahead.add(VNI)
    assert not len(learner.select(events(2), 0))


class DeafClient(RspClient):
    """Nobody answers: of how many destinations each question was."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def groups_of(self, vnis: Array) -> Array:
        return np.zeros(len(vnis), np.uint8)

    async def ask(self, entries: rsp.Entries, first: Gateway | None = None) -> None:  # noqa: ARG002 - the client's
        self.asked.append(len(entries))


async def test_after_a_calm_nothing_waits_and_a_scan_is_asked_about_in_few_questions() -> None:
    dataplane, client = memory_dataplane(fc=64), DeafClient()
    settings = VswitchSettings(nats_url="nats://nowhere", host_id=UUID(int=1))
    cache = ForwardingCache(dataplane.fc, dataplane.fc_index)
    negatives = Negatives(cache.views, settings.negative_s)
    learner = Learner(dataplane, cache, negatives, client, settings, Metrics())
    learn = cast(MemoryEvents, dataplane.learn)
    async with running(learner.run()):
        await asyncio.sleep(0)
        begun = time.monotonic()
        for number in range(100):
            learn.push(events(number))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await wait_until(lambda: sum(client.asked) == 100, "all to be asked about")
        took = time.monotonic() - begun

    assert client.asked[0] < 10  # those before the first look, and not all
    assert len(client.asked) <= took / GATHER_S + 2
