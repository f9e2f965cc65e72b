"""Clients of DHCP and of router advertisements that nobody here wrote, run in guests.

Each has mounts of its own: such clients write leases and /etc/resolv.conf, and a guest shares its
files with this machine.
"""

from pathlib import Path
from typing import Final

from achelous_lab.netns.guest import Guest
from achelous_lab.process import Completed, run
from achelous_lab.waiting import wait_until

_TIMEOUT_S: Final = 30.0

_PRIVATE: Final = """
set -e
mount -t tmpfs tmpfs /run
if [ -d /var/lib/dhcpcd ]; then mount -t tmpfs tmpfs /var/lib/dhcpcd; fi
mount --bind "$1" /etc/resolv.conf
shift
exec "$@"
"""
_SCRIPT: Final = """#!/bin/sh
# what the client tells: its event and variables
echo "event=$1" >> '{told}'
env >> '{told}'
"""


class Clients:
    """Runs clients in one guest; `folder` takes what they write."""

    def __init__(self, guest: Guest, folder: Path) -> None:
        self._guest = guest
        self._folder = folder
        self._told = folder / "told"
        self._resolv = folder / "resolv.conf"
        self._script = folder / "script"
        self._resolv.touch()
        self._script.write_text(_SCRIPT.format(told=self._told))
        self._script.chmod(0o755)

    async def forget_addresses(self) -> None:
        """The guest has no address but its link-local one, as one that has just booted."""
        await self._guest_run("ip", "addr", "flush", "dev", "eth0", "scope", "global")
        await wait_until(self._settled, "the link-local address to be usable", timeout=10)

    async def udhcpc(self) -> dict[str, str]:
        """What busybox's DHCP client is told; raises CommandFailed if it gets no lease."""
        options = ["-n", "-q", "-f", "-t", "5", "-T", "1", "-O", "mtu", "-s", str(self._script)]
        return await self._variables("udhcpc", "-i", "eth0", *options)

    async def dhcpcd(self, family: int) -> dict[str, str]:
        """What dhcpcd is told; it configures eth0. ``family``: 4 or 6."""
        options = [f"-{family}", "-B", "-1", "-t", "15", "--script", str(self._script)]
        return await self._variables("dhcpcd", *options, "eth0")

    async def rdisc6(self) -> str:
        """What the first router that answers says, as ndisc6's rdisc6 prints it."""
        done = await self._guest_run("rdisc6", "-1", "-r", "5", "-w", "1000", "eth0")
        return done.stdout.decode()

    async def addresses(self) -> str:
        return (await self._guest_run("ip", "addr", "show", "dev", "eth0")).stdout.decode()

    async def routes(self, family: int) -> str:
        return (await self._guest_run("ip", f"-{family}", "route")).stdout.decode()

    async def solicit_as_kernel(self) -> None:
        """Have the guest's own kernel look for a router, as it does when a device comes up."""
        settings = Path("/proc/sys/net/ipv6/conf/eth0")

        def toggle() -> None:
            (settings / "disable_ipv6").write_text("1")
            (settings / "addr_gen_mode").write_text("0")  # dhcpcd leaves it with none
            (settings / "accept_ra").write_text("1")
            (settings / "disable_ipv6").write_text("0")

        await self._guest.namespace.call(toggle)

    async def listen_for_routers(self) -> None:
        """The guest's kernel knows no router, takes what one says, and does not ask."""
        routes = await self.routes(6)
        for default in (line for line in routes.splitlines() if line.startswith("default")):
            await self._guest_run("ip", "-6", "route", "del", *default.split()[:5])
        accept = Path("/proc/sys/net/ipv6/conf/eth0/accept_ra")
        await self._guest.namespace.call(lambda: accept.write_text("1"))

    async def _settled(self) -> bool:
        shown = await self.addresses()
        return "fe80::" in shown and "tentative" not in shown

    async def _variables(self, *argv: str) -> dict[str, str]:
        self._told.unlink(missing_ok=True)
        await self._guest_run(*argv)
        lines = self._told.read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    async def _guest_run(self, *argv: str) -> Completed:
        private = ["unshare", "--mount", "--propagation", "private"]
        within = ["sh", "-c", _PRIVATE, "sh", str(self._resolv)]
        return await run([*private, *within, *argv], netns=self._guest.name, timeout=_TIMEOUT_S)
