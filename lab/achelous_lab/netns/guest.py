"""Guests: namespaces with vNICs on cables, and what a person would try in them."""

import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from achelous_lab.netns import links, programs
from achelous_lab.netns.cables import Cable, Cables
from achelous_lab.netns.namespace import Namespace
from achelous_lab.netns.results import CurlResult, IperfResult, PingCount, PingResult
from achelous_lab.process import Process, run
from achelous_lab.waiting import wait_until

_PROGRAMS: Final = Path(programs.__file__).parent
IPERF_PORT: Final = 5201


@dataclass(frozen=True, slots=True)
class Nic:
    """How a guest's device is set up: as DHCP would tell it."""

    mac: str
    address: IPv4Interface
    router: IPv4Address | None = None
    address6: IPv6Interface | None = None
    router6: IPv6Address | None = None


class Guest:
    """A namespace with devices `eth0`, `eth1`, ... and an MTU of 1500.

    `logs` is the directory for the output of what runs in it.
    """

    def __init__(self, namespace: Namespace, logs: Path) -> None:
        self.namespace = namespace
        self.nics: list[Nic] = []
        self.cables: list[Cable] = []
        self._logs = logs
        self._started = 0

    @classmethod
    async def create(cls, name: str, logs: Path) -> Self:
        """A guest without any vNIC, in a namespace of that name."""
        return cls(await Namespace.create(name), logs)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Take out its cables and remove it."""
        for cable in self.cables:
            await cable.remove()
        self.cables.clear()
        self.namespace.remove()

    async def add_nic(self, cables: Cables, nic: Nic) -> Cable:
        """A new device with a cable, which the caller plugs into a host."""
        device = f"eth{len(self.nics)}"
        cable = await cables.new(self.namespace, device)
        self.cables.append(cable)
        self.nics.append(nic)
        await self.namespace.netlink(
            lambda n: links.configure(
                n, device, address=nic.address, mac=nic.mac, router=nic.router
            )
        )
        address6 = nic.address6
        if address6 is not None:
            await self.namespace.netlink(
                lambda n: links.configure6(n, device, address=address6, router=nic.router6)
            )
        return cable

    @property
    def name(self) -> str:
        return self.namespace.name

    @property
    def ip(self) -> IPv4Address:
        """The address of its first vNIC."""
        return self.nics[0].address.ip

    @property
    def ip6(self) -> IPv6Address:
        """The IPv6 address of its first vNIC; raises LookupError if it has none."""
        address = self.nics[0].address6
        if address is None:
            raise LookupError(f"{self.name} has no IPv6 address: its subnet has no cidr6")
        return address.ip

    async def ping(
        self,
        other: "Guest | IPv4Address | IPv6Address",
        count: int = 3,
        interval: float = 0.05,
        wait: float = 1.0,
    ) -> PingResult:
        """`count` echo requests, to a guest by IPv4; `wait` seconds for the last replies."""
        options = ["-n", "-c", str(count), "-i", f"{interval:g}", "-W", f"{wait:g}"]
        done = await run(
            ["ping", *options, str(_ip(other))],
            netns=self.name,
            timeout=count * interval + wait + 5,
            check=False,
        )
        return PingResult.parse(done.stdout)

    async def ping6(self, other: "Guest", count: int = 3, interval: float = 0.05) -> PingResult:
        """Like `ping`, by IPv6."""
        return await self.ping(other.ip6, count, interval)

    @asynccontextmanager
    async def pinger(
        self, other: "Guest | IPv4Address", interval: float = 0.01
    ) -> AsyncIterator["Pinger"]:
        """Ping all the while; see Pinger."""
        program = [*_python("pinger"), str(_ip(other)), f"{interval:g}"]
        pinger = Pinger(self.process("pinger", program))
        await pinger.start()
        try:
            yield pinger
        finally:
            await pinger.stop()

    @asynccontextmanager
    async def serve_http(self, port: int = 80) -> AsyncIterator[str]:
        """An HTTP server on all its addresses; yields its URL, at which it says the guest's name.

        `/bytes/N` below it sends N bytes, `/drip/N` 1000 bytes each 10 ms for N seconds.
        """
        program = [*_python("httpd"), str(port), self.name]
        server = self.process("httpd", program, says="listening")
        async with server:
            yield f"http://{self.ip}:{port}"

    async def curl(self, url: str, timeout: float = 5.0) -> CurlResult:
        """One GET request; its failure is a result, not an exception."""
        options = ["-sS", "--max-time", f"{timeout:g}", "-w", "%{stderr}%{json}"]
        done = await run(["curl", *options, url], netns=self.name, timeout=timeout + 5, check=False)
        return CurlResult.parse(done.stdout, done.stderr[done.stderr.index(b"{") :])

    async def iperf3(
        self,
        server: "Guest",
        seconds: int = 2,
        *,
        udp: bool = False,
        bitrate: str = "0",
        length: int | None = None,
        streams: int = 1,
        port: int = IPERF_PORT,
    ) -> IperfResult:
        """Send to `server`, where iperf3 is started for this one test.

        `bitrate` is per stream, "0" for no limit; `length` is the size of a write or datagram.
        """
        listener = server.process(
            "iperf3",
            ["iperf3", "-s", "-1", "-p", str(port), "--forceflush"],
            says="Server listening",
        )
        options = ["-c", str(server.ip), "-p", str(port), "--connect-timeout", "3000"]
        options += ["-t", str(seconds), "-P", str(streams), "-b", bitrate, "-J"]
        options += ["-u"] if udp else []
        options += ["-l", str(length)] if length is not None else []
        async with listener:
            done = await run(
                ["iperf3", *options],
                netns=self.name,
                timeout=seconds + 15,
                check=False,
            )
        return IperfResult.parse(done.stdout)

    def process(self, name: str, argv: list[str], says: str = "") -> Process:
        """A process in the guest, not started yet; ready when it has written `says`."""
        self._started += 1
        log = self._logs / f"{self.name}-{name}-{self._started}.log"
        return Process(f"{name} in {self.name}", argv, log=log, netns=self.name, says=says)


class Pinger:
    """Sends echo requests at a steady rate, and knows exactly how many came back."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def count(self) -> PingCount:
        """Up to 0.1 s old while it runs; exact after `stop`."""
        lines = self._process.output().splitlines(keepends=True)
        reports = [line for line in lines if line.startswith("{") and line.endswith("}\n")]
        if not reports:
            return PingCount(0, 0, 0, 0, 0.0, done=False)
        return PingCount(**json.loads(reports[-1]))

    async def wait_for_replies(self, count: int, timeout: float = 10.0) -> PingCount:
        """Wait for `count` more replies than there are now."""
        wanted = self.count().received + count
        await wait_until(
            lambda: self.count().received >= wanted,
            lambda: f"{wanted} replies: {self.count()}",
            timeout=timeout,
        )
        return self.count()

    async def last_reply(self, silence: float = 0.5, timeout: float = 10.0) -> float:
        """When the last reply came (time.monotonic), once none has come for `silence` seconds."""
        replies, last = self.count().received, time.monotonic()

        def silent() -> bool:
            nonlocal replies, last
            if self.count().received != replies:
                replies, last = self.count().received, time.monotonic()
            return time.monotonic() - last > silence

        await wait_until(silent, f"{silence:g} s without a reply", timeout=timeout)
        return last

    async def start(self) -> None:
        await self._process.start()

    async def stop(self) -> PingCount:
        """Stop sending, wait up to 1 s for the last replies, and return the exact counts."""
        await self._process.stop()
        return self.count()


def _python(program: str) -> list[str]:
    """A program of ours in a bare interpreter, which starts in a few milliseconds."""
    return [sys.executable, "-I", "-S", str(_PROGRAMS / f"{program}.py")]


def _ip(target: Guest | IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    return target.ip if isinstance(target, Guest) else target
