"""What the load generator sees of a platform: routes at gateways, hosts that only report."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from uuid import UUID, uuid4

import msgspec
import pytest
from background import running
from gateway_world import ADDRESSES, FakeController, GatewayUnderTest, following, gateway_of

from achelous_lab.platform import Lab, Size
from achelous_lab.waiting import wait_until
from achelous_loadgen.awaited import Targets
from achelous_loadgen.balancing import choose, leads
from achelous_loadgen.gateways import GatewayClient, Reports
from achelous_loadgen.http import Http
from achelous_loadgen.sim.parked import ParkedHosts
from achelous_loadgen.watch import Watch
from achelous_shared import messages, subjects
from achelous_shared.bus import Bus
from achelous_shared.bus_roles import Role
from achelous_shared.messages import HostApplied

VPC = 7
VTEP = IPv4Address("198.18.0.2")


@dataclass
class Seen:
    """A controller, and a watch over its one gateway."""

    controller: FakeController
    gateway: GatewayUnderTest
    watch: Watch
    reports: Reports

    async def changed(self, *, put: range = range(0), delete: range = range(0)) -> None:
        await self.controller.publish(self.controller.change(VPC, put=put, delete=delete))


@pytest.fixture
async def seen(controller: FakeController) -> AsyncIterator[Seen]:
    url = controller.server.url(Role.OBSERVER)
    controller.change(VPC, put=range(3))
    async with (
        gateway_of(controller, DATAPLANE="none") as gateway,
        Bus.connect(url, role=Role.VSWITCH, name="test") as bus,
    ):
        await gateway.process.start()
        await following(controller, VPC)
        reports = Reports(bus)
        watch = Watch([GatewayClient(bus, bus, gateway.id)], reports, bus)
        async with running(reports.run(), watch.run()):
            await wait_until(lambda: reports.live(gateway.id), "the gateway to be heard")
            yield Seen(controller, gateway, watch, reports)


def targets(numbers: range, vtep: IPv4Address | None) -> Targets:
    keys = b"".join(ADDRESSES[n] for n in numbers)
    count = len(numbers)
    return Targets(VPC, keys, bytes(6 * count), (vtep.packed if vtep else bytes(4)) * count)


async def test_what_is_there_already_is_met_although_no_delta_names_it(seen: Seen) -> None:
    await seen.watch.until_met(targets(range(3), VTEP), 5.0)


async def test_what_a_delta_brings_is_met_many_and_single_ones(seen: Seen) -> None:
    waiting = [
        asyncio.ensure_future(seen.watch.until_met(targets(numbers, VTEP), 5.0))
        for numbers in (range(10, 500), range(500, 501), range(501, 502))
    ]
    await asyncio.sleep(0)
    await seen.changed(put=range(10, 501))

    await asyncio.gather(*waiting[:2])
    assert not waiting[2].done()
    await seen.changed(put=range(501, 502))
    await waiting[2]


async def test_a_report_that_is_lost_costs_a_moment_and_no_more(seen: Seen) -> None:
    seen.reports.told = lambda _, __: None
    waiting = asyncio.ensure_future(seen.watch.until_met(targets(range(10, 11), VTEP), 5.0))
    await asyncio.sleep(0)
    await seen.changed(put=range(10, 11))
    await waiting


async def test_an_address_may_be_awaited_twice_at_once(seen: Seen) -> None:
    """One vNIC's end, and the next one that has its address."""
    gone = asyncio.ensure_future(seen.watch.until_met(targets(range(10, 11), None), 5.0))
    there = asyncio.ensure_future(seen.watch.until_met(targets(range(10, 11), VTEP), 5.0))
    await gone
    assert not there.done()
    await seen.changed(put=range(10, 11))
    await there


async def test_a_withdrawal_is_met_when_the_route_is_gone(seen: Seen) -> None:
    waiting = asyncio.ensure_future(seen.watch.until_met(targets(range(2), None), 5.0))
    await asyncio.sleep(0)
    assert not waiting.done()
    await seen.changed(delete=range(2))
    await waiting


async def test_a_route_to_another_host_is_not_what_was_waited_for(seen: Seen) -> None:
    with pytest.raises(TimeoutError, match=r"gateways lack \[1\] of 3 changes in VNI 7"):
        await seen.watch.until_met(
            Targets(
                VPC,
                targets(range(3), VTEP).keys,
                bytes(18),
                VTEP.packed * 2 + (VTEP + 1).packed,
            ),
            0.3,
        )


async def test_a_gateway_that_is_gone_is_not_waited_for(seen: Seen) -> None:
    await seen.gateway.process.kill9()
    with pytest.raises(TimeoutError):  # none is live: nobody can say that it is in effect
        await seen.watch.until_met(targets(range(3), VTEP), 1.0)
    await seen.gateway.process.start()
    await seen.watch.until_met(targets(range(3), VTEP), 10.0)


class Document(msgspec.Struct):
    """A host's, as far as a parked one reads it, and more that it does not."""

    host_id: UUID
    revision: int
    ports: list[str] = []


async def test_parked_hosts_report_what_is_news_to_them(controller: FakeController) -> None:
    host, stranger = uuid4(), uuid4()
    heard: list[HostApplied] = []

    async def on_report(data: bytes) -> None:
        heard.append(messages.decode(data, HostApplied))

    url = controller.server.url(Role.OBSERVER)
    async with Bus.connect(url, role=Role.OBSERVER, name="test") as bus:
        parked = ParkedHosts(bus)
        parked.add([host])

        async def told(host_id: UUID, revision: int) -> None:
            document = msgspec.msgpack.encode(Document(host_id, revision))
            await bus.publish_bytes(subjects.host(host_id), document)

        async def both_listen() -> bool:
            await told(host, 1)
            return bool(heard)

        async with running(parked.run(), bus.listen(subjects.ALL_HOSTS_APPLIED, on_report)):
            await wait_until(both_listen, "the first report")
            for host_id, revision in ((stranger, 9), (host, 3), (host, 2), (host, 4)):
                await told(host_id, revision)
            await wait_until(lambda: heard[-1].revision == 4, "the last report")

    assert {report.host_id for report in heard} == {host}
    revisions = [report.revision for report in heard]
    assert revisions == sorted(revisions)
    assert 2 not in revisions


@pytest.mark.timeout(120)
async def test_requests_go_to_the_controller_that_does_not_lead() -> None:
    async with Lab(Size(hosts=0, gateways=0, controllers=2, dataplane=False)) as lab:
        token = lab.operator_token_file.read_text().strip()

        def urls() -> list[str]:
            return [f"http://{address}" for address in lab.addresses]

        async with Http(urls, token, 4) as http:

            async def leading(url: str) -> bool:
                return leads(await http.outside("/metrics", url) or b"")

            async def one_leads() -> bool:
                return [await leading(url) for url in urls()].count(True) == 1

            await wait_until(one_leads, "a leader", timeout=30)
            await choose(http, urls())
            [leader] = [url for url in urls() if await leading(url)]
            [other] = [url for url in urls() if url != leader]
            assert http.preferred == other

            killed = next(
                process for process in lab.controllers if f"{process.pid}" in str(_file(lab, other))
            )
            await killed.kill9()
            await http.get("/hosts")  # by the one that is left
            assert http.preferred is None


def _file(lab: Lab, url: str) -> str:
    """The name of the file in which a controller says where it listens."""
    return next(
        str(file)
        for file in lab.run_dir.path.glob("controller-*.http")
        if file.read_text().strip() == url.removeprefix("http://")
    )
