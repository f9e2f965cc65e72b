"""Namespaces and cables for packet tests: made with unique names, gone after the test."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar

from pyroute2 import IPRoute, netns

from achelous_shared.bpf import NetNs

T = TypeVar("T")
_NUMBERS: Final = count(1)
_TIMEOUT: Final = 30.0


class Namespace:
    """One network namespace, with its loopback up."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._inside = NetNs(Path("/run/netns") / name)
        self.links = IPRoute(netns=name)
        self.up("lo")

    def close(self) -> None:
        self.links.close()
        self._inside.close()

    def run(self, *command: str, timeout: float = _TIMEOUT) -> str:
        """The standard output of a command run inside; CalledProcessError if it fails."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *command],
            check=True,
            timeout=timeout,
            capture_output=True,
            text=True,
        )
        return done.stdout

    @contextmanager
    def running(self, *command: str) -> Iterator["subprocess.Popen[str]"]:
        """A command inside that lives as long as the block."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.name, *command], stdout=subprocess.PIPE, text=True
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate(timeout=_TIMEOUT)

    def call(self, work: Callable[[], T]) -> T:
        """Python run inside, such as attaching a program."""
        return self._inside.run_sync(work)

    def index(self, device: str) -> int:
        found: int = self.links.link_lookup(ifname=device)[0]
        return found

    def up(self, device: str, *addresses: str, **settings: Any) -> int:
        """Configure a device and set it up; returns its ifindex."""
        index = self.index(device)
        for address in addresses:
            ip, length = address.split("/")
            self.links.addr("add", index=index, address=ip, prefixlen=int(length))
        self.links.link("set", index=index, state="up", **settings)
        return index

    def mac(self, device: str) -> str:
        found: str = self.links.link("get", index=self.index(device))[0].get_attr("IFLA_ADDRESS")
        return found


class Wires:
    """What a test builds. Leaving it removes the namespaces, and with them all devices."""

    def __init__(self) -> None:
        self.prefix = f"pkt{os.getpid():x}-{next(_NUMBERS)}"
        self._made = ExitStack()

    def __enter__(self) -> "Wires":
        return self

    def __exit__(self, *_: object) -> None:
        self._made.close()

    def namespace(self, name: str) -> Namespace:
        full = f"{self.prefix}-{name}"
        netns.create(full)
        self._made.callback(netns.remove, full)
        return self._made.enter_context(closing(Namespace(full)))

    def cable(self, one: Namespace, name: str, other: Namespace, other_name: str) -> None:
        """A veth pair between two namespaces, down."""
        one.links.link(
            "add",
            ifname=name,
            kind="veth",
            peer={"ifname": other_name, "net_ns_fd": other.name},
        )

    def underlay(self, hosts: dict[str, Namespace], mtu: int = 1700) -> None:
        """A bridge that joins the hosts; each gets a device `under` with its address."""
        switch = self.namespace("switch")
        switch.links.link("add", ifname="bridge", kind="bridge")
        bridge = switch.up("bridge", mtu=mtu)
        for number, (address, host) in enumerate(hosts.items()):
            self.cable(host, "under", switch, f"port{number}")
            switch.up(f"port{number}", mtu=mtu, master=bridge)
            host.up("under", f"{address}/24", mtu=mtu)
