"""`achelous up`: a platform that stays until it is told to end, with a sample VPC in it."""

import asyncio
import json
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import urlsplit

import httpx
from rich.console import Console
from rich.live import Live
from rich.table import Table

from achelous_lab.api import ApiRefused, Rule
from achelous_lab.hypervisor import Hypervisor
from achelous_lab.platform import External, Lab, Size
from achelous_lab.waiting import wait_until
from achelous_shared.current import CurrentPlatform, announced

_REFRESH_S: Final = 1.0
_GUEST_S: Final = 30.0
_ANSWER_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Options:
    """What `achelous up` was told. ``sample``: make a VPC with two guests, if there are a host and
    a gateway for them. ``as_json``: when it is up, say where things are in one line of JSON on
    standard output, for scripts.
    """

    size: Size
    external: External
    sample: bool = True
    as_json: bool = False


async def stay_up(options: Options) -> int:
    """Run until SIGINT or SIGTERM; everything is taken down before it returns. Exit code 0.

    Raises what went wrong first, never a group.
    """
    console = Console(stderr=True, highlight=False)
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel if task else loop.stop)
    try:
        console.print("[bold]Starting[/] the platform")
        for silence in await _silences(options.external):
            console.print(silence, markup=False, soft_wrap=True)
        async with Lab(options.size, options.external) as lab:
            await _serve(lab, options, console)
    except asyncio.CancelledError:
        console.print("[bold]Taken down[/]")
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    return 0


async def _silences(external: External) -> list[str]:
    """Of the servers that exist already, those that do not answer: services wait for them."""
    servers = (("database", external.dsn, 5432), ("bus", external.nats_url, 4222))
    found = await asyncio.gather(
        *(_silence(what, url, port) for what, url, port in servers if url is not None)
    )
    return [silence for silence in found if silence is not None]


async def _silence(what: str, url: str, port: int) -> str | None:
    place = urlsplit(url)
    if place.hostname is None:  # a socket of this machine, named in the query
        return None
    address = place.hostname, place.port or port
    try:
        async with asyncio.timeout(_ANSWER_S):
            _, writer = await asyncio.open_connection(*address)
    except (OSError, TimeoutError) as error:
        why = str(error) or f"no answer within {_ANSWER_S:g} s"
        return f"The {what} at {address[0]}:{address[1]} cannot be reached, waiting for it: {why}"
    writer.close()
    return None


async def _serve(lab: Lab, options: Options, console: Console) -> None:
    async with asyncio.TaskGroup() as group:
        if options.size.dataplane:
            group.create_task(Hypervisor(lab).run())
        if options.sample and lab.hosts and lab.gateways:
            await _sample(lab)
        elif options.sample:
            console.print("There is no sample VPC: its guests would need a host and a gateway.")
        _introduce(lab, console, as_json=options.as_json)
        with ExitStack() as until_the_end:
            _announce(lab, console, until_the_end)
            live = until_the_end.enter_context(Live(console=console, auto_refresh=False))
            while True:
                live.update(await _status(lab), refresh=console.is_terminal)
                await asyncio.sleep(_REFRESH_S)


def _announce(lab: Lab, console: Console, until_the_end: ExitStack) -> None:
    """Tell the other commands where the platform is, which does not depend on it."""
    url = f"http://{lab.addresses[0]}"
    bus = lab.write_nats_url()
    current = CurrentPlatform(
        url=url, token_file=str(lab.operator_token_file), nats_url_file=str(bus)
    )
    try:
        until_the_end.enter_context(announced(current))
    except OSError as error:
        console.print(f"Other commands find it by --url and --token-file only: {error}")


async def _sample(lab: Lab) -> None:
    """Project `sample` with VPC `sample`, 10.0.0.0/24 and two guests, which the hypervisor runs.

    Nothing is done where the database has that project already.
    """
    if (await lab.api.get("/projects", name="sample"))["items"]:
        return
    tenant = await lab.tenant("sample")
    vpc = await tenant.vpc("sample")
    subnet = await tenant.subnet(vpc, "10.0.0.0/24", "sample")
    group = await tenant.security_group(vpc, "open", Rule())
    vnic = {"subnet_id": subnet["id"], "security_group_ids": [group["id"]]}
    for name in ("one", "two"):
        body = {"name": name, "kind": "vm", "vnics": [vnic], "project_id": tenant.project_id}
        created = await lab.api.post("/instances", body)
        await lab.api.wait_active(created["id"])
        # a vNIC may run before its guest has its addresses
        there = partial(_has_guest, lab, created["id"])
        await wait_until(there, f"guest {name} to be there", timeout=_GUEST_S)


def _has_guest(lab: Lab, instance_id: str) -> bool:
    return any(str(instance.id) == instance_id for instance in lab.instances)


def _introduce(lab: Lab, console: Console, *, as_json: bool) -> None:
    address = f"http://{lab.addresses[0]}"
    guests = {i.guest.name: [str(nic.address.ip) for nic in i.guest.nics] for i in lab.instances}
    if as_json:
        places = {
            "url": address,
            "token_file": str(lab.operator_token_file),
            "run_dir": str(lab.run_dir.path),
            "guests": guests,
        }
        print(json.dumps(places), flush=True)  # noqa: T201  this is what was asked for
    console.print(f"API              {address}/v1")
    console.print(f"its docs         {address}/docs")
    console.print(f"operator's token {lab.operator_token_file}")
    for name, ips in guests.items():
        console.print(f"guest            ip netns exec {name} ping ...   ({', '.join(ips)})")
    console.print("Ctrl-C or SIGTERM takes everything down.")


async def _status(lab: Lab) -> Table:
    table = Table("part", "name", "state", title="Achelous", title_justify="left")
    for process in lab.controllers:
        table.add_row("controller", process.name, "running" if process.running else "down")
    try:
        status = await lab.api.get("/status")
    except (ApiRefused, httpx.HTTPError) as error:
        table.add_row("API", "", f"[red]{error}[/]")
        return table
    fleet = status["fleet"] or {"gateways": [], "hosts": []}
    for kind in ("gateways", "hosts"):
        for machine in fleet[kind]:
            table.add_row(kind[:-1], machine["name"], _health(machine))
    for state, count in sorted(status["instances"].items()):
        table.add_row("instances", state, str(count))
    return table


def _health(machine: dict[str, float | str | None]) -> str:
    age = machine.get("report_age_s")
    return "never reported" if age is None else f"reported {float(age):.1f} s ago"
