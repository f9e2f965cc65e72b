"""What passes a device, captured by a packet socket, and what tshark says of it."""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from achelous_lab.netns.namespace import Namespace
from achelous_lab.process import run

_EVERY_PROTOCOL: Final = 3  # ETH_P_ALL
_STATISTICS: Final = (263, 6)  # SOL_PACKET, PACKET_STATISTICS
_FORCED_BUFFER: Final = 33  # SO_RCVBUFFORCE
_ROOM: Final = 1 << 26
_WARNING: Final = 0x600000  # tshark's severities: notes are below
_SEQUENCE: Final = 0x02000000  # its group "Sequence"
_FIELDS: Final = (
    "frame.protocols", "vxlan.gbp", "ip.checksum.status", "tcp.checksum.status",
    "udp.checksum.status", "icmp.checksum.status", "icmpv6.checksum.status",
    "_ws.expert.severity", "_ws.expert.group", "_ws.expert.message",
)  # fmt: skip


@dataclass(slots=True)
class Capture:
    """Frames of one device, both ways, as they were when it sent or received them."""

    frames: list[tuple[float, bytes]] = field(default_factory=list)

    def write(self, path: Path) -> Path:
        """As a pcap file."""
        with path.open("wb") as file:
            file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 17, 1))
            for at, data in self.frames:
                stamp = int(at), int(at % 1 * 1e6)
                file.write(struct.pack("<IIII", *stamp, len(data), len(data)) + data)
        return path


@asynccontextmanager
async def captured(namespace: Namespace, device: str) -> AsyncIterator[Capture]:
    """All that passes the device until the end of the block; raises AssertionError at its end if
    something could not be kept."""
    capture, loop = Capture(), asyncio.get_running_loop()
    with await namespace.socket(socket.SOCK_RAW, socket.AF_PACKET) as link:
        link.setsockopt(socket.SOL_SOCKET, _FORCED_BUFFER, _ROOM)
        link.bind((device, _EVERY_PROTOCOL))

        def take() -> None:
            try:
                while True:
                    capture.frames.append((time.time(), link.recv(1 << 17)))
            except BlockingIOError:
                pass

        loop.add_reader(link, take)
        try:
            yield capture
            take()
        finally:
            loop.remove_reader(link)
        _, lost = struct.unpack("II", link.getsockopt(*_STATISTICS, 8))
    assert lost == 0


@dataclass(frozen=True, slots=True)
class Dissected:
    """One frame, as tshark reads it. `checksums`: by protocol, the statuses from outside to inside,
    `0` bad, `1` good, `2` not verified, `3` none, as for an outer UDP header."""

    protocols: str
    gbp: str
    checksums: dict[str, list[str]]
    faults: list[str]

    @property
    def quotes(self) -> bool:
        """Whether it is an ICMP error, which has the begin of another packet in it."""
        return "icmp:ip" in self.protocols or "icmpv6:ipv6" in self.protocols


async def dissect(
    capture: Path, data: Sequence[str], *, transport_checksums: bool = True
) -> list[Dissected]:
    """What tshark reads in a pcap file, with every checksum verified.

    ``data``: ports, as `udp.port==7200`, whose content is of no protocol. Bytes that came by chance
    tshark takes now and then for some protocol's, malformed.

    Faults are its expert information from warnings on, but for the group "Sequence": that a
    connection was reset, or its window is full, is said of a conversation and not of a frame.
    `transport_checksums` False: of TCP and UDP they are not, as devices would have filled them in.
    """
    verify = str(transport_checksums).upper()
    settings = ["ip.check_checksum:TRUE", f"tcp.check_checksum:{verify}",
                f"udp.check_checksum:{verify}", "tcp.analyze_sequence_numbers:FALSE"]  # fmt: skip
    argv = ["tshark", "-n", "-r", str(capture), "-T", "fields", "-E", "aggregator=|"]
    argv += [word for setting in settings for word in ("-o", setting)]
    argv += [word for port in data for word in ("-d", f"{port},data")]
    argv += [word for name in _FIELDS for word in ("-e", name)]
    lines = (await run(argv, timeout=60)).stdout.decode().splitlines()
    return [_dissected(line.split("\t")) for line in lines]


def _dissected(values: list[str]) -> Dissected:
    found = dict(zip(_FIELDS, values, strict=True))
    severities, groups, messages = (
        found[f"_ws.expert.{name}"].split("|") for name in ("severity", "group", "message")
    )
    faults = [
        message
        for severity, group, message in zip(severities, groups, messages, strict=True)
        if severity and int(severity, 0) >= _WARNING and int(group, 0) != _SEQUENCE
    ]
    checksums = {
        name.partition(".")[0]: value.split("|") if value else []
        for name, value in found.items()
        if name.endswith("checksum.status")
    }
    return Dissected(found["frame.protocols"], found["vxlan.gbp"], checksums, faults)
