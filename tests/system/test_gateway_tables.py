"""A gateway's tables stay the controller's, whatever happens to the messages between them."""

from collections.abc import AsyncIterator

import numpy as np
import pytest
from gateway_world import (
    FakeController,
    GatewayUnderTest,
    assert_equal,
    following,
    gateway_of,
)

from achelous_lab.waiting import wait_until
from achelous_shared import messages, rsp, subjects
from achelous_shared.messages import RouteDelta, SnapshotReply, SnapshotRequest
from achelous_shared.routes import REVISION, unpack

VPC, OTHER = 7, 8


@pytest.fixture
async def stopped(controller: FakeController) -> AsyncIterator[GatewayUnderTest]:
    """A gateway without a data plane that has not been started."""
    async with gateway_of(controller, DATAPLANE="none") as gateway:
        yield gateway


@pytest.fixture
async def gateway(stopped: GatewayUnderTest, controller: FakeController) -> GatewayUnderTest:
    """A gateway that follows VPC 7, which has routes to addresses 0..9."""
    controller.change(VPC, put=range(10))
    await stopped.process.start()
    await following(controller, VPC)
    return stopped


class TestStart:
    async def test_all_vpcs_are_read_before_the_gateway_is_ready(
        self, stopped: GatewayUnderTest, controller: FakeController
    ) -> None:
        controller.chunk, controller.page = 7, 2
        for vni in range(1, 10):
            controller.change(vni, put=range(vni * 5))
        await stopped.process.start()
        assert await stopped.lookup(controller.revisions) == dict(controller.tables)
        await assert_equal(stopped, controller)

    async def test_an_error_of_the_controller_is_asked_again(
        self, stopped: GatewayUnderTest, controller: FakeController
    ) -> None:
        controller.change(VPC, put=range(10))
        replies = [
            SnapshotReply(vni=VPC, revision=0, entries=b"", done=False, error="starting"),
            SnapshotReply(vni=VPC, revision=1, entries=b"garbage", done=True),
            SnapshotReply(vni=VPC, revision=1, entries=b"", done=False),
            SnapshotReply(vni=OTHER, revision=1, entries=b"", done=True),
        ]

        async def misbehave(_: SnapshotRequest) -> SnapshotReply | None:
            return replies.pop() if replies else None

        controller.on_snapshot = misbehave
        await stopped.process.start()
        await assert_equal(stopped, controller)
        assert await stopped.metric("snapshot_failures_total") == 4

    async def test_a_vpc_without_routes_is_told_from_one_that_is_not(
        self, stopped: GatewayUnderTest, controller: FakeController
    ) -> None:
        assert controller.revisions[OTHER] == 0
        await stopped.process.start()
        types = [(await answer(stopped, vni))["type"] for vni in (OTHER, 99)]
        assert types == [rsp.ReplyType.NO_ROUTE, rsp.ReplyType.UNKNOWN_VNI]


async def answer(gateway: GatewayUnderTest, vni: int) -> np.void:
    """The reply about an address that has no route."""
    request = rsp.encode(rsp.MessageType.REQUEST, 1, rsp.requests([vni], [[0] * 16]))
    data = await gateway.vswitch.request(subjects.rsp(gateway.id), request, timeout=2)
    entry: np.void = rsp.decode(data, rsp.MessageType.REPLY).entries[0]
    return entry


class TestDeltas:
    async def test_they_are_applied_in_order_and_reported(
        self, gateway: GatewayUnderTest, controller: FakeController
    ) -> None:
        before = controller.snapshots
        for n in range(20):
            await controller.publish(controller.change(VPC, put=[n, n + 1], delete=[n - 5], host=n))
        await assert_equal(gateway, controller)
        assert controller.snapshots == before

    async def test_a_new_vpc_needs_no_snapshot(
        self, gateway: GatewayUnderTest, controller: FakeController
    ) -> None:
        before = controller.snapshots
        await controller.publish(controller.change(OTHER, put=range(500)))
        await assert_equal(gateway, controller)
        assert controller.snapshots == before

    async def test_a_miss_tells_the_revision_of_the_vpc(
        self, gateway: GatewayUnderTest, controller: FakeController
    ) -> None:
        await controller.publish(controller.change(VPC, put=[11]), controller.change(VPC, put=[12]))
        await controller.until_applied(VPC)
        missed = await answer(gateway, VPC)
        assert missed["type"] == rsp.ReplyType.NO_ROUTE
        assert missed["revision"] == controller.revisions[VPC]

    async def test_duplicates_change_nothing(
        self, gateway: GatewayUnderTest, controller: FakeController
    ) -> None:
        put = controller.change(VPC, put=[11, 12], host=3)
        moved = controller.change(VPC, put=[11], delete=[12], host=4)
        await controller.publish(put, moved, put, moved, put)
        await assert_equal(gateway, controller)
        await wait_until(lambda: at_least(gateway, "deltas_duplicate_total", 3), "duplicates")
        await assert_equal(gateway, controller)

    async def test_a_gap_is_filled_by_a_snapshot(
        self, gateway: GatewayUnderTest, controller: FakeController
    ) -> None:
        controller.change(VPC, put=range(20, 30), delete=range(5))  # lost
        await controller.publish(controller.change(VPC, put=[40]))
        await assert_equal(gateway, controller)
        assert await gateway.metric("deltas_gap_total") == 1

    async def test_reordered_deltas_end_in_the_same_table(
        self, gateway: GatewayUnderTest, controller: FakeController
    ) -> None:
        deltas = [controller.change(VPC, put=[n, 50], host=n) for n in range(20, 28)]
        await controller.publish(*reversed(deltas))
        await assert_equal(gateway, controller)

    async def test_the_loss_of_the_last_one_shows_when_its_revision_is_announced(
        self, gateway: GatewayUnderTest, controller: FakeController
    ) -> None:
        controller.change(VPC, put=[30], delete=[3])  # lost
        await controller.announce(VPC)
        await assert_equal(gateway, controller)

    async def test_changes_between_the_chunks_of_a_snapshot_are_not_lost(
        self, gateway: GatewayUnderTest, controller: FakeController
    ) -> None:
        """Both those that its later chunks have and those that its earlier ones lack."""
        controller.chunk = 100
        controller.change(VPC, put=range(600))  # lost
        before = await gateway.metric("snapshots_total")
        chunks = 0

        async def change_meanwhile(_: SnapshotRequest) -> None:
            nonlocal chunks
            n, chunks = chunks, chunks + 1
            if 0 < n < 5:
                await controller.publish(
                    controller.change(VPC, put=[n], delete=[599 - n, 300 + n, n + 1], host=9)
                )
            elif n == 5:
                await wait_until(lambda: at_least(gateway, "deltas_buffered_total", 4), "deltas")

        controller.on_snapshot = change_meanwhile
        await controller.announce(VPC)
        await wait_until(lambda: chunks >= 5, "the chunks")
        await assert_equal(gateway, controller)
        assert await gateway.metric("snapshots_total") == before + 1

    async def test_large_deltas_leave_rsp_its_turn(
        self, gateway: GatewayUnderTest, controller: FakeController
    ) -> None:
        await controller.publish(
            *(controller.change(VPC, put=range(600), host=host) for host in range(2, 40))
        )
        assert (await answer(gateway, 99))["type"] == rsp.ReplyType.UNKNOWN_VNI
        await assert_equal(gateway, controller)


async def at_least(gateway: GatewayUnderTest, metric: str, count: int) -> bool:
    return await gateway.metric(metric) >= count


BAD_DELTAS = (
    b"",
    b"\xff" * 40,
    messages.encode(RouteDelta(v=2, vni=VPC, base=0, revision=9, entries=b"")),  # unknown version
    messages.encode(RouteDelta(vni=VPC, base=0, revision=9, entries=b"x" * 35)),  # not an entry
    messages.encode(RouteDelta(vni=VPC, base=0, revision=9, entries=b"\0" * 36)),  # no operation
    messages.encode(RouteDelta(vni=0, base=0, revision=9, entries=b"")),
    messages.encode(RouteDelta(vni=1 << 24, base=0, revision=9, entries=b"")),
    messages.encode(RouteDelta(vni=VPC, base=9, revision=3, entries=b"")),  # backwards
)


class TestGarbage:
    async def test_bad_deltas_are_counted_and_nothing_else_changes(
        self, gateway: GatewayUnderTest, controller: FakeController
    ) -> None:
        snapshots = controller.snapshots
        for data in BAD_DELTAS:
            await controller.publish_raw(VPC, data)
        await controller.publish(controller.change(VPC, put=[20]))
        await assert_equal(gateway, controller)
        assert await gateway.metric("bad_messages_total") == len(BAD_DELTAS)
        assert controller.snapshots == snapshots

    async def test_rsp_garbage_is_counted_and_answered_at_once(
        self, gateway: GatewayUnderTest
    ) -> None:
        data = await gateway.vswitch.request(subjects.rsp(gateway.id), b"garbage", timeout=1)
        assert len(rsp.decode(data, rsp.MessageType.REPLY).entries) == 0
        assert await gateway.metric("rsp_garbage_total") == 1


@pytest.mark.usefixtures("gateway")
class TestReports:
    async def test_all_on_command(self, controller: FakeController) -> None:
        controller.reports.clear()
        await controller.command_report()
        await wait_until(
            lambda: any(r.full for r in controller.reports), "a full report", timeout=2
        )
        [full] = [report for report in controller.reports if report.full]
        assert full.serving
        assert dict(unpack(full.revisions, REVISION).tolist()) == dict(controller.revisions)

    async def test_a_heartbeat_twice_a_second(self, controller: FakeController) -> None:
        controller.reports.clear()
        took = await wait_until(lambda: len(controller.reports) >= 4, "four heartbeats", timeout=4)
        assert took < 3

    async def test_what_an_operator_is_shown(self, controller: FakeController) -> None:
        show = await controller.show()
        assert show.serving
        assert [(vpc.vni, vpc.revision, vpc.routes) for vpc in show.vpcs] == [
            (VPC, controller.revisions[VPC], 10)
        ]
        assert (show.vpcs_total, show.routes_total) == (1, 10)


class TestFailures:
    async def test_a_killed_gateway_comes_back_with_equal_tables(
        self, gateway: GatewayUnderTest, controller: FakeController
    ) -> None:
        await controller.publish(controller.change(OTHER, put=range(100)))
        await gateway.process.kill9()
        await controller.publish(controller.change(VPC, put=[15], delete=[1, 2]))
        await gateway.process.start()
        await assert_equal(gateway, controller)

    async def test_the_bus_may_die_and_come_back(
        self, gateway: GatewayUnderTest, controller: FakeController
    ) -> None:
        await controller.server.kill9()
        lost = controller.change(VPC, put=[15], delete=[1, 2])
        await wait_until(lambda: not_ready(gateway), "the gateway to stop vouching")
        await controller.server.start()
        await wait_until(gateway.ready, "the gateway to vouch again")
        await assert_equal(gateway, controller)
        assert lost.revision == controller.revisions[VPC]

    async def test_a_full_table_says_so_and_takes_what_fits(
        self, gateway: GatewayUnderTest, controller: FakeController
    ) -> None:
        for vni in range(100, 108):  # 4,800 routes
            await controller.publish(controller.change(vni, put=range(600)))
        await controller.until_applied(*range(100, 108))
        await controller.publish(controller.change(VPC, put=range(300)))
        await controller.publish(controller.change(OTHER, put=range(5)))
        await controller.until_applied(OTHER)
        assert await gateway.metric("table_full_total") >= 1
        assert controller.applied[VPC] < controller.revisions[VPC]
        await controller.publish(controller.change(107, delete=range(600)))
        await assert_equal(gateway, controller)


async def not_ready(gateway: GatewayUnderTest) -> bool:
    return not await gateway.ready()
