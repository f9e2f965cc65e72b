"""A host's packet path: what becomes of a frame of a guest, or of one from the underlay.

Written from docs/architecture.md ("One packet"), docs/decisions, docs/drops.md and the RFCs that
they name, to be compared with the eBPF programs. It knows no limits by time of day (learn events
and ICMP errors in 100 ms), no samples of drops, and of DHCP and router solicitations only that they
are asked for: their tests are elsewhere.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from model.learning import Learning
from model.reading import Datagram, Drop, First
from model.sessions import Table
from model.wire import Address, ethernet, ethertype_of
from model.world import ROUTER_MAC, VNic, World

ENCAPSULATION: Final = 50
"""Outer IPv4, UDP, VXLAN and the inner Ethernet header."""
HOST: Final = 0
"""The slot that counts what concerns no vNIC."""


class Verdict(NamedTuple):
    """What becomes of a frame: "guest", "wire", "back" to its sender, "drop", or "next" for the
    kernel. `reason`: of a counted drop, of which an answer may tell the sender."""

    action: str
    frame: bytes = b""
    reason: str | None = None


class Outcome(NamedTuple):
    """What became of a frame, and what was counted by slot."""

    verdict: Verdict
    counted: dict[int, Counter[str]]


@dataclass(slots=True)
class Host:
    """A host with its state. Times in seconds of any clock."""

    world: World
    table: Table
    learning: Learning
    firsts: dict[Datagram, First] = field(default_factory=dict)
    counted: dict[int, Counter[str]] = field(default_factory=dict)

    def count(self, slot: int, name: str, amount: int = 1) -> None:
        self.counted.setdefault(slot, Counter())[name] += amount

    def finish(self, verdict: Verdict, slot: int) -> Outcome:
        """Ends a packet; a drop is counted for that slot."""
        if verdict.reason is not None:
            self.count(slot, verdict.reason)
        counted, self.counted = self.counted, {}
        return Outcome(verdict, counted)

    def deliver(self, vnic: VNic, to: Address, packet: bytes) -> Verdict:
        """To a guest of this host, from the router's MAC."""
        self.count(vnic.slot, "rx_packets")
        self.count(vnic.slot, "rx_bytes", 14 + len(packet))
        return Verdict("guest", ethernet(vnic.mac, ROUTER_MAC, ethertype_of(to)) + packet)


def dropped(error: Drop) -> Verdict:
    return Verdict("drop", reason=error.reason)


def host(world: World) -> Host:
    """A host without any session."""
    return Host(world, Table(world.settings), Learning(world.settings))
