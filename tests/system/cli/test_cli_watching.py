"""`achelous drops` and `achelous flows`, asked over the real bus."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from system.cli.conftest import Cli, World

from achelous_lab.waiting import wait_until
from achelous_shared import subjects
from achelous_shared.bus import Answer, Bus
from achelous_shared.bus_roles import Role
from achelous_shared.messages import (
    DropsReply,
    DropsRequest,
    DropView,
    FlowsReply,
    FlowView,
    SessionView,
    decode,
    encode,
)

pytestmark = pytest.mark.timeout(120)

_numbers = itertools.count(1)
SESSION = SessionView(
    vni=4096, protocol="tcp", source="10.0.0.7:40000", destination="10.0.0.8:80",
    state="established", packets=(10, 9), bytes=(1500, 900), age_s=150.0, idle_s=0.0123,
)  # fmt: skip
FLOW = FlowView(session=SESSION, packets_per_s=(1000.0, 500.0), bits_per_s=(8e6, 4e5))


@pytest.fixture
async def host(world: World) -> UUID:
    """A registered host of the test's own."""
    number = next(_numbers)
    made = await world.cli.json("host", "create", f"w{number}", "--vtep", f"198.18.7.{number}")
    return UUID(made["id"])


@asynccontextmanager
async def answering(world: World, subject: str, answer: Answer) -> AsyncIterator[None]:
    async with Bus.connect(world.nats.url(Role.VSWITCH), role=Role.VSWITCH, name="test") as bus:
        serving = asyncio.create_task(bus.serve(subject, answer))
        try:
            yield
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


def drop(number: int) -> DropView:
    return DropView(
        number=number, at=1.7e9, vnic_id=UUID(int=7), reason="acl_ingress", rule=None,
        direction="underlay", length=98, summary=f"icmp 10.0.0.{number} > 10.0.0.8 type 8 code 0",
        frame=b"\x02",
    )  # fmt: skip


async def drops(data: bytes) -> bytes:
    """Two samples that are there, and one more for who goes on."""
    after = decode(data, DropsRequest).after
    samples = {-1: (drop(1), drop(2)), 2: (drop(3),)}.get(after, ())
    number = samples[-1].number if samples else after
    return encode(
        DropsReply(
            samples=samples, next=number, more=False, missed=0, lost=4, counts={"acl_ingress": 9}
        )
    )


async def _succeeds(cli: Cli, *args: str) -> bool:
    return (await cli(*args)).code == 0


async def test_drops_are_shown_with_counts_and_samples(world: World, host: UUID) -> None:
    async with answering(world, subjects.drops(host), drops):
        await wait_until(lambda: _succeeds(world.cli, "drops", str(host)), "an answer")
        said = await world.cli("drops", str(host))
        shown = await world.cli.json("drops", str(host))
    assert "icmp 10.0.0.1 > 10.0.0.8 type 8 code 0" in said.out
    assert "4 drops were counted without one" in said.out
    assert shown["counts"] == {"acl_ingress": 9}


async def test_flows_are_shown_with_rates(world: World, host: UUID) -> None:
    async def flows(_: bytes) -> bytes:
        return encode(FlowsReply(flows=(FLOW,), total=3, seconds=1.0))

    async with answering(world, subjects.flows(host), flows):
        await wait_until(lambda: _succeeds(world.cli, "flows", str(host)), "an answer")
        said = await world.cli("flows", str(host))
    assert "Top 1 of 3, over 1.0 s" in said.out
    assert "8 Mbit/s / 400 kbit/s  1000 / 500" in said.out


async def test_a_vnic_has_one_host(world: World) -> None:
    said = await world.cli("drops", "h1", "--vnic", str(UUID(int=7)))
    assert (said.code, "give HOST or --vnic" in said.err) == (2, True)
