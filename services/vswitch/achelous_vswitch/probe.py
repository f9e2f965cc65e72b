"""Are the gateways alive: UDP probes over the underlay, answered by the gateway's packet path."""

import asyncio
import logging
import socket
import struct
import time
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from prometheus_client import Histogram

from achelous_shared.bpf import NetNs
from achelous_vswitch.gateways import STALE_HEARTBEAT_MS, Gateways

log = logging.getLogger(__name__)

PORT: Final = 4798
"""C's ACH_PROBE_PORT."""
MAGIC: Final = 0x41434850
"""C's ACH_PROBE_MAGIC."""
_VERSION: Final = 1
_REQUEST, _REPLY = 1, 2
LAYOUT: Final = struct.Struct(">IBBHIIQ")
"""C's struct ach_probe: magic, version, type, reserved, sequence, heartbeat age, sent at."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A gateway's answer to one probe."""

    sequence: int
    heartbeat_age_ms: int
    sent_ns: int


def request(sequence: int, sent_ns: int) -> bytes:
    """The payload of a probe."""
    return LAYOUT.pack(MAGIC, _VERSION, _REQUEST, 0, sequence, 0, sent_ns)


def parse(data: bytes) -> Answer | None:
    """The answer in a payload, or None if it is none."""
    if len(data) != LAYOUT.size:
        return None
    magic, version, kind, _, sequence, age, sent_ns = LAYOUT.unpack(data)
    if (magic, version, kind) != (MAGIC, _VERSION, _REPLY):
        return None
    return Answer(sequence, age, sent_ns)


class Prober:
    """Probes every gateway each ``interval`` seconds."""

    def __init__(self, gateways: Gateways, netns: NetNs, interval: float, rtt_s: Histogram) -> None:
        self._gateways = gateways
        self._netns = netns
        self._interval = interval
        self._rtt_s = rtt_s
        self._sequence = 0

    async def run(self) -> None:
        """Probe until cancelled."""
        probes = await self._netns.run(_open_socket)
        loop = asyncio.get_running_loop()
        try:
            loop.add_reader(probes.fileno(), self._read, probes)
            while True:
                self._read(probes)  # what has come counts before it is judged
                self._gateways.share_out()
                self._send(probes)
                await asyncio.sleep(self._interval)
        finally:
            loop.remove_reader(probes.fileno())
            probes.close()

    def _send(self, probes: socket.socket) -> None:
        self._sequence += 1
        for gateway in self._gateways:
            # One that is new has lost nothing of what was sent before it came.
            if not gateway.sent:
                gateway.answered = self._sequence - 1
            gateway.sent = self._sequence
            address = str(IPv4Address(gateway.vtep))
            try:
                probes.sendto(request(self._sequence, time.monotonic_ns()), (address, PORT))
            except OSError as error:  # it counts as lost, which is what it is
                log.debug("probe to gateway %s: %s", gateway.name, error)

    def _read(self, probes: socket.socket) -> None:
        while True:
            try:
                data, (address, _) = probes.recvfrom(2048)
            except BlockingIOError:
                break
            except OSError as error:  # an ICMP error in answer to a probe
                log.debug("probe: %s", error)
                continue
            answer = parse(data)
            if answer is not None:
                self._take(answer, int(IPv4Address(address)))
        self._gateways.share_out()

    def _take(self, answer: Answer, vtep: int) -> None:
        for gateway in self._gateways:
            if gateway.vtep == vtep and gateway.answered < answer.sequence <= gateway.sent:
                gateway.heard = True
                gateway.answered = answer.sequence
                gateway.fresh = answer.heartbeat_age_ms <= STALE_HEARTBEAT_MS
                rtt_ns = time.monotonic_ns() - answer.sent_ns
                gateway.rtt_us = rtt_ns / 1000
                self._rtt_s.observe(rtt_ns / 1e9)


def _open_socket() -> socket.socket:
    probes = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    probes.bind(("0.0.0.0", 0))  # noqa: S104 - only what a gateway sends back is taken
    return probes
