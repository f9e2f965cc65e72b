"""What data planes hold, asked over the real bus; the terminal; which API is talked to."""

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from system.cli.conftest import Cli, World

from achelous_lab.waiting import wait_until
from achelous_shared import current, subjects
from achelous_shared.bus import Bus
from achelous_shared.bus_roles import Role
from achelous_shared.messages import (
    FcView,
    GatewayShow,
    GatewayView,
    Message,
    PortView,
    PreprogrammedView,
    SessionView,
    ShowRequest,
    VpcView,
    VswitchShow,
    decode,
    encode,
)

pytestmark = pytest.mark.timeout(120)
_ID = UUID(int=7)


@asynccontextmanager
async def _answering(
    world: World, role: Role, service_id: UUID, answer: Callable[[int], Message]
) -> AsyncIterator[None]:
    """A service on the bus that shows its tables, given the limit of the request."""

    async def show(data: bytes) -> bytes:
        return encode(answer(decode(data, ShowRequest).limit))

    async with Bus.connect(world.nats.url(role), role=role, name="test") as bus:
        serving = asyncio.create_task(bus.serve(subjects.show(str(role), service_id), show))
        try:
            yield
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


async def _succeeds(cli: Cli, *args: str) -> bool:
    return (await cli(*args)).code == 0


def _vswitch(host_id: UUID, limit: int) -> VswitchShow:
    port = PortView(
        vnic_id=_ID, device="v000000000007", vni=4096, ip="10.0.0.7", mac="02:00:00:00:00:07",
        state="active", rules_in=1, rules_out=1, tx_packets=10, tx_bytes=1500, rx_packets=9,
        rx_bytes=900, local=1, direct=7, relayed=2, drops={"acl_in": 3},
    )  # fmt: skip
    fc = FcView(
        vni=4096, ip="10.0.0.8", vtep="198.18.0.12", mac="02:00:00:00:00:08", generation=5,
        revision=17, age_ms=42.0, idle_ms=1500.0,
    )  # fmt: skip
    session = SessionView(
        vni=4096, protocol="tcp", source="10.0.0.7:40000", destination="10.0.0.8:80",
        state="established", packets=(10, 9), bytes=(1500, 900), age_s=150.0, idle_s=0.0123,
    )  # fmt: skip
    gateway = GatewayView(
        gateway_id=_ID, name="g1", vtep="198.18.0.1", live=True, share=0.5, rtt_us=55.0
    )
    return VswitchShow(
        host_id=host_id, revision=3, ports=(port,)[:limit], fc=(fc,)[:limit], fc_total=1900,
        sessions=(session,)[:limit], sessions_total=1, gateways=(gateway,),
        drops={"unknown_vtep": 4},
        preprogrammed=(PreprogrammedView(vni=4097, revision=21, routes=300, whole=False),),
    )  # fmt: skip


async def test_a_host_shows_ports_cache_sessions_gateways_and_drops(world: World) -> None:
    cli = world.cli
    host_id = UUID((await cli.json("host", "create", "h1", "--vtep", "198.18.0.11"))["id"])
    async with _answering(world, Role.VSWITCH, host_id, lambda limit: _vswitch(host_id, limit)):
        await wait_until(lambda: _succeeds(cli, "host", "show", "h1"), "the vSwitch's answer")
        said = await cli("host", "show", "h1", "--limit", "1")
        tables = await cli.json("host", "show", "h1")
    assert said.code == 0, said.err
    shown = {re.sub(" +", " ", line) for line in said.out.splitlines()}
    assert {
        "vtep 198.18.0.11",
        "v000000000007 active 4096 10.0.0.7 02:00:00:00:00:07 1 1 10 9 1.5 kB 900 B 1 7 2 acl_in=3",
        "Forwarding cache: 1 of 1900",
        "4096 10.0.0.8 198.18.0.12 02:00:00:00:00:08 5 17 42 ms 1.5 s",
        "4096 tcp 10.0.0.7:40000 10.0.0.8:80 established 10 / 9 1.5 kB / 900 B 2 min 30 s 12.3 ms",
        "g1 198.18.0.1 yes 50% 55 us",
        "4097 21 300 no",
        "unknown_vtep 4",
    } <= shown
    assert (tables["host_id"], tables["fc"][0]["age_ms"]) == (str(host_id), 42.0)


async def test_a_gateway_shows_vpcs_counters_and_drops(world: World) -> None:
    cli = world.cli
    gateway_id = UUID((await cli.json("gateway", "create", "g1", "--vtep", "198.18.0.1"))["id"])
    show = GatewayShow(
        gateway_id=gateway_id, serving=True, vpcs=(VpcView(vni=4096, revision=9, routes=8),),
        vpcs_total=1, routes_total=8, relayed_packets=5, relayed_bytes=490, probes=100,
        rsp_requests=3, rsp_entries=4, drops={},
    )  # fmt: skip
    async with _answering(world, Role.GATEWAY, gateway_id, lambda _: show):
        await wait_until(lambda: _succeeds(cli, "gateway", "show", "g1"), "the gateway's answer")
        said = await cli("gateway", "show", "g1")
        tables = await cli.json("gateway", "show", "g1")
    assert said.code == 0, said.err
    shown = {re.sub(" +", " ", line) for line in said.out.splitlines()}
    assert {"VPCs: 1", "4096 9 8", "serving yes", "relayed packets 5", "Drops: none"} <= shown
    assert tables["routes_total"] == 8


async def test_a_silent_vswitch_is_4_and_the_host_is_shown_all_the_same(cli: Cli) -> None:
    host_id = (await cli.json("host", "create", "mute", "--vtep", "198.18.0.13"))["id"]
    said = await cli("host", "show", "mute")
    assert (said.code, said.err.partition(":")[0]) == (4, "No answer")
    assert host_id in said.out
    as_json = await cli("host", "show", "mute", "--json")
    assert (as_json.code, as_json.out, as_json.problem["status"]) == (4, "", 504)


async def test_status_agrees_with_its_checks(cli: Cli) -> None:
    said = await cli("status", "--json")
    well = all(answer == "ok" for answer in said.json["checks"].values())
    assert said.code == (0 if well else 4), said.err
    people = await cli("status")
    assert "check database  ok" in re.sub("  +", "  ", people.out)
    assert people.err == ""


async def test_the_version_is_told_without_an_api() -> None:
    assert (await Cli()("version")).out == "achelous 0.1.0\n"
    assert await Cli().json("version") == {"version": "0.1.0"}


async def test_a_platform_announced_on_this_machine_is_found(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = Cli({"XDG_STATE_HOME": world.cli.env["XDG_STATE_HOME"]})
    assert (await bare("project", "list")).code == 2
    monkeypatch.setenv("XDG_STATE_HOME", bare.env["XDG_STATE_HOME"])
    platform = current.CurrentPlatform(url=world.url, token_file=str(world.token_file))
    with current.announced(platform):
        assert (await bare("project", "list")).code == 0


async def test_an_api_that_is_not_there_is_4_and_named_with_its_origin(cli: Cli) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # bound, and no one listens
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        said = await cli.having(ACHELOUS_URL=url)("vpc", "list", "--json")
    assert said.code == 4
    assert f"{url} (from ACHELOUS_URL) can not be reached" in said.problem["detail"]


async def test_a_terminal_gets_colours_and_whole_ids_and_a_pipe_gets_neither_escape(
    cli: Cli,
) -> None:
    made = await cli.json("gateway", "create", "gt", "--vtep", "198.18.0.14")
    on_terminal = await _on_terminal(cli, "gateway", "list", "--name", "gt")
    assert "\x1b[1m" in on_terminal
    assert made["id"] in on_terminal
    assert "\x1b" not in (await cli("gateway", "list", "--name", "gt")).out


async def _on_terminal(cli: Cli, *args: str) -> str:
    """What a command writes to a terminal of 40 columns."""
    ours, theirs = os.openpty()
    try:
        with os.fdopen(theirs, "wb") as terminal:
            ended = await cli.having(COLUMNS="40", TERM="xterm").on(terminal, *args)
        assert ended == 0
        return os.read(ours, 65536).decode()
    finally:
        os.close(ours)
