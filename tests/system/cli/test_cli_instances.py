"""Instances by the command line: vNICs, batches, and waiting until they are there or gone."""

import asyncio
import json
import signal
from pathlib import Path

import pytest
from sqlalchemy import text
from system.cli.conftest import Cli, World

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module", autouse=True)
async def prod(world: World) -> str:
    """A VPC prod with subnets web and db and a group web, on a host h1; the VPC's id.

    Another VPC has a group default as well, as every VPC has.
    """
    cli = world.cli
    await cli.json("host", "create", "h1", "--vtep", "198.18.0.11", "--capacity", "5000")
    await cli.json("project", "create", "acme")
    vpc = await cli.json("vpc", "create", "prod", "--project", "acme")
    await cli.json("vpc", "create", "test", "--project", "acme")
    await cli.json("subnet", "create", "web", "--vpc", "prod", "--cidr", "10.0.0.0/20")
    await cli.json("subnet", "create", "db", "--vpc", "prod", "--cidr", "10.1.0.0/24")
    await cli.json("security-group", "create", "web", "--vpc", "prod")
    return str(vpc["id"])


async def _becomes(world: World, name: str, state: str, reason: str | None = None) -> None:
    """Do the leader's part, which needs no data plane here."""
    change = text("UPDATE instances SET state = :state, reason = :reason WHERE name = :name")
    async with world.database.begin() as connection:
        await connection.execute(change, {"name": name, "state": state, "reason": reason})


async def _ended(child: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    async with asyncio.timeout(30):
        out, err = await child.communicate()
    return child.returncode, out.decode(), err.decode()


async def _says(child: asyncio.subprocess.Process, what: str) -> None:
    """Wait until the command's standard error has said so."""
    assert child.stderr is not None
    async with asyncio.timeout(30):
        said = (await child.stderr.readline()).decode()
    assert what in said


async def test_an_instance_has_the_vnics_that_were_asked_for(cli: Cli, prod: str) -> None:
    made = await cli.json(
        "instance", "create", "web-1", "--kind", "container", "--host", "h1",
        "--nic", "subnet=prod/web,ip=10.0.0.7,group=web,group=default", "--nic", "subnet=db",
    )  # fmt: skip
    groups = await cli.json("security-group", "list", "--vpc", prod)
    assert (made["kind"], made["state"]) == ("container", "BUILDING")
    assert [vnic["ip"] for vnic in made["vnics"]] == ["10.0.0.7", "10.1.0.2"]
    assert set(made["vnics"][0]["security_group_ids"]) == {g["id"] for g in groups["items"]}

    table = (await cli("instance", "show", "acme/web-1")).out
    assert "state                BUILDING\n" in table
    assert "10.0.0.7  02:" in table
    row = "web-1  container  BUILDING  10.0.0.7,10.1.0.2"
    assert row in (await cli("instance", "list", "--host", "h1", "--name", "web-1")).out
    renamed = await cli.json("instance", "update", "web-1", "--name", "web-one")
    assert renamed["id"] == made["id"]

    vnic = await cli.json("vnic", "show", "prod/10.0.0.7")
    assert vnic["instance_id"] == made["id"]
    moved = await cli.json("vnic", "update", vnic["id"], "--security-group", "prod/web")
    assert len(moved["security_group_ids"]) == 1
    listed = await cli.json("vnic", "list", "--instance", "web-one", "--subnet", "prod/db")
    assert [item["ip"] for item in listed["items"]] == ["10.1.0.2"]

    deleted = await cli.json("instance", "delete", "web-one")
    assert deleted["state"] == "DELETING"


async def test_an_instance_is_moved_to_another_host(world: World) -> None:
    cli = world.cli
    h2 = await cli.json("host", "create", "h2", "--vtep", "198.18.0.12", "--capacity", "1")
    made = await cli.json("instance", "create", "mover", "--host", "h1", "--nic", "subnet=web")
    await cli.json("instance", "create", "stayer", "--host", "h1", "--nic", "subnet=web")

    child = await world.cli.start("instance", "move", "acme/mover", "h2", "--wait", "--json")
    await _says(child, "is being built")
    await _becomes(world, "mover", "ACTIVE")
    code, out, _ = await _ended(child)

    shown = json.loads(out)
    assert (code, shown["id"], shown["host_id"]) == (0, made["id"], h2["id"])
    full = await cli("instance", "move", "stayer", "h2", "--json")
    assert (full.code, full.problem["errors"][0]["field"]) == (1, "host_id")
    stale = await cli("instance", "move", "mover", "h1", "--if-version", "1")
    assert (stale.code, "read it again" in stale.err) == (1, True)
    assert (await cli("instance", "move", "mover", "h9")).code == 3
    assert h2["id"] in (await cli("instance", "move", "mover", "h2")).out


async def test_wait_returns_the_active_instance(world: World) -> None:
    child = await world.cli.start(
        "instance", "create", "soon", "--nic", "subnet=web", "--wait", "--json"
    )
    await _says(child, "is being built")
    await _becomes(world, "soon", "ACTIVE")
    code, out, err = await _ended(child)
    assert (code, json.loads(out)["state"], err) == (0, "ACTIVE", "")


async def test_wait_tells_why_an_instance_is_in_error(world: World) -> None:
    child = await world.cli.start("instance", "create", "bad", "--nic", "subnet=web", "--wait")
    await _says(child, "is being built")
    await _becomes(world, "bad", "ERROR", "host h1 does not answer")
    code, out, err = await _ended(child)
    assert (code, out) == (1, "")
    assert "host h1 does not answer" in err


async def test_wait_for_a_deletion_ends_when_the_instance_is_gone(world: World) -> None:
    await world.cli.json("instance", "create", "old", "--nic", "subnet=web")
    child = await world.cli.start("instance", "delete", "old", "--wait")
    await _says(child, "is being deleted")
    async with world.database.begin() as connection:
        ours = "(SELECT id FROM instances WHERE name = 'old')"
        await connection.execute(text(f"DELETE FROM vnics WHERE instance_id IN {ours}"))  # noqa: S608  a constant
        await connection.execute(text("DELETE FROM instances WHERE name = 'old'"))
    assert await _ended(child) == (0, "", "instance old deleted\n")


async def test_wait_gives_up_after_its_timeout_and_says_how_far_it_is(cli: Cli) -> None:
    said = await cli(
        "instance", "create", "slow", "--nic", "subnet=web", "--wait", "--timeout", "0.5"
    )
    assert (said.code, said.out) == (4, "")
    assert "is not ACTIVE after 0.5 s; its state is BUILDING" in said.err


async def test_an_interrupt_ends_the_wait_with_130(cli: Cli) -> None:
    child = await cli.start("instance", "create", "cut", "--nic", "subnet=web", "--wait")
    await _says(child, "is being built")
    child.send_signal(signal.SIGINT)
    code, out, err = await _ended(child)
    assert (code, out) == (130, "")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("nic", "code", "said"),
    [
        ("ip=10.0.0.8", 2, "the subnet is missing"),
        ("subnet=nowhere", 3, "there is no subnet with the name nowhere"),
        ("subnet=web,group=nobody", 3, "there is no security group with the name nobody"),
        ("subnet=web,ip=10.7.0.1", 1, 'vnics[0].ip = "10.7.0.1": '),
        ("subnet=web,ip=ten", 1, 'vnics[0].ip = "ten": '),
    ],
)
async def test_a_vnic_that_can_not_be_is_refused(cli: Cli, nic: str, code: int, said: str) -> None:
    ended = await cli("instance", "create", "never", "--nic", nic)
    assert said in ended.err
    assert (ended.code, ended.out) == (code, "")
    assert (await cli("instance", "show", "never")).code == 3


async def test_a_batch_is_read_from_a_file_or_from_standard_input(
    cli: Cli, prod: str, tmp_path: Path
) -> None:
    batch = [
        {"name": "b-1", "vnics": [{"subnet_id": "prod/web", "security_group_ids": ["default"]}]},
        {"name": "b-2", "host_id": "h1", "vnics": [{"subnet_id": "db"}]},
    ]
    file = tmp_path / "batch.json"
    file.write_text(json.dumps({"instances": batch}))

    made = (await cli.json("instance", "create-batch", str(file)))["instances"]
    assert [(one["name"], one["vnics"][0]["vpc_id"]) for one in made] == [
        ("b-1", prod),
        ("b-2", prod),
    ]
    piped = await cli("instance", "create-batch", "-", stdin=json.dumps(batch[:1]))
    assert piped.code == 0
    assert piped.out.splitlines()[1].split()[1:4] == ["b-1", "vm", "BUILDING"]


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        ("{", 2, "- is no JSON"),
        ("{}", 2, "a JSON list of instances"),
        ("[1]", 1, "instances[0] = 1: "),
        ('[{"name": "b", "vnics": [{"subnet_id": 7}]}]', 1, "instances[0].vnics[0].subnet_id = 7"),
        ('[{"name": "b", "vnics": "none"}]', 1, 'instances[0].vnics = "none"'),
        ('[{"name": "b", "vnics": [{"subnet_id": "nowhere"}]}]', 3, "no subnet"),
        ("[]", 1, "instances = "),
    ],
)
async def test_a_batch_that_makes_no_sense_is_refused(
    cli: Cli, content: str, code: int, said: str
) -> None:
    ended = await cli("instance", "create-batch", "-", stdin=content)
    assert said in ended.err
    assert (ended.code, ended.out) == (code, "")


async def test_long_lists_are_whole_and_stop_at_the_limit(cli: Cli) -> None:
    batch = [{"name": f"many-{n}", "vnics": [{"subnet_id": "web"}]} for n in range(1200)]
    made = await cli("instance", "create-batch", "-", "--json", stdin=json.dumps(batch))
    assert made.code == 0

    whole = await cli.json("instance", "list")
    assert len(whole["items"]) >= 1200
    assert whole["next"] is None
    assert len((await cli("instance", "list")).out.splitlines()) == len(whole["items"]) + 1
    assert len((await cli.json("instance", "list", "--limit", "1100"))["items"]) == 1100
    assert len((await cli("instance", "list", "--limit", "3")).out.splitlines()) == 4


async def test_a_reader_that_has_seen_enough_is_no_error(cli: Cli) -> None:
    child = await cli.start("instance", "list")
    assert child.stdout is not None
    await child.stdout.readline()
    child._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
    async with asyncio.timeout(30):
        code = await child.wait()
    assert child.stderr is not None
    assert (code, await child.stderr.read()) == (0, b"")


async def test_a_vnic_may_name_its_ipv6_address(cli: Cli, prod: str) -> None:
    await cli.json(
        "subnet", "create", "six", "--vpc", prod, "--cidr", "10.6.0.0/24", "--cidr6", "fd00:6::/64"
    )
    made = await cli.json(
        "instance", "create", "dual-1", "--host", "h1", "--project", "acme",
        "--nic", "subnet=six,ip=10.6.0.9,ip6=fd00:6::9",
    )  # fmt: skip
    assert [vnic["ip6"] for vnic in made["vnics"]] == ["fd00:6::9"]
    listed = (await cli("instance", "list", "--name", "dual-1")).out
    assert "10.6.0.9,fd00:6::9" in listed
    found = await cli.json("vnic", "list", "--ip6", "fd00:6::9")
    assert [vnic["id"] for vnic in found["items"]] == [made["vnics"][0]["id"]]
