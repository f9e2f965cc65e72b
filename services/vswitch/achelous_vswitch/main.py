"""Wires the agent: settings, the packet path of this host, the bus."""

import argparse
import resource

from achelous_shared.bpf import NetNs
from achelous_shared.bus import Bus
from achelous_shared.service import run
from achelous_shared.telemetry import setup_logging
from achelous_vswitch.agent import Agent
from achelous_vswitch.devices import Devices
from achelous_vswitch.kernel import open_dataplane, remove_dataplane
from achelous_vswitch.settings import VswitchSettings


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m achelous_vswitch",
        description="The agent of one host's vSwitch. Its settings are environment variables.",
    )
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("run", help="run the agent (the default); packets go on when it ends")
    commands.add_parser("detach", help="remove the packet path of a host whose agent has ended")
    command = parser.parse_args(arguments).command
    settings = VswitchSettings()  # type: ignore[call-arg]  # pydantic reads the environment
    setup_logging("vswitch", settings.log_level)
    if command == "detach":
        remove_dataplane(settings.bpffs)
        return 0
    return run(_agent(settings))


async def _agent(settings: VswitchSettings) -> None:
    _raise_file_limit()
    netns = NetNs(settings.netns)
    try:
        with open_dataplane(settings, netns) as dataplane:
            name = f"vswitch {settings.host_id}"
            async with Bus.connect(settings.nats_url, role="vswitch", name=name) as bus:
                devices = Devices(netns, settings.underlay_device)
                await Agent(settings, dataplane, devices, netns, bus).run()
    finally:
        netns.close()


def _raise_file_limit() -> None:
    """Each port's link is an open file."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
