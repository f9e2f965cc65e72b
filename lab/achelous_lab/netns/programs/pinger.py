"""Ping an address at a steady rate and count exactly: `pinger.py ADDRESS INTERVAL_S`.

Each 0.1 s it writes a line of JSON with the counts so far. On SIGTERM it stops sending, waits up to
a second for the replies that are out, writes a last line with "done": true, and ends.
"""

import json
import os
import select
import signal
import socket
import statistics
import struct
import sys
import time

REPORT_EVERY_S = 0.1
LAST_REPLIES_S = 1.0
_ECHO_REPLY = 0
_ECHO_REQUEST = 8
_HEADER = struct.Struct("!BBHHH")
_PAYLOAD = struct.Struct("!Qd")


class Pinger:
    """An ICMP echo client (RFC 792) with 64-bit sequence numbers in the payload."""

    def __init__(self, address: str) -> None:
        self._id = os.getpid() & 0xFFFF
        self._answered = bytearray()  # one byte per request sent
        self._rtts: list[float] = []
        self._duplicates = 0
        self._errors = 0
        self._longest_gap = 0.0
        self.last_heard = time.monotonic()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self.socket.connect((address, 0))
        self.socket.setblocking(False)

    @property
    def outstanding(self) -> int:
        return len(self._answered) - len(self._rtts)

    def send(self) -> None:
        """A request that the kernel refuses to send counts as sent, and as lost."""
        payload = _PAYLOAD.pack(len(self._answered), time.monotonic())
        header = _HEADER.pack(_ECHO_REQUEST, 0, 0, self._id, len(self._answered) & 0xFFFF)
        checksum = internet_checksum(header + payload)
        packet = header[:2] + struct.pack("!H", checksum) + header[4:] + payload
        self._answered.append(0)
        try:
            self.socket.send(packet)
        except OSError:
            self._errors += 1

    def receive(self) -> None:
        """Take all replies that have come in."""
        while True:
            try:
                packet = self.socket.recv(2048)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error for one of the requests
                self._errors += 1
                continue
            self._take(packet[(packet[0] & 15) * 4 :], time.monotonic())

    def _take(self, icmp: bytes, now: float) -> None:
        if len(icmp) < _HEADER.size + _PAYLOAD.size:
            return
        kind, _, _, identifier, _ = _HEADER.unpack_from(icmp)
        if kind != _ECHO_REPLY or identifier != self._id:
            return
        sequence, sent = _PAYLOAD.unpack_from(icmp, _HEADER.size)
        if self._answered[sequence]:
            self._duplicates += 1
            return
        self._answered[sequence] = 1
        self._rtts.append(now - sent)
        self.heard(now)

    def heard(self, now: float) -> None:
        self._longest_gap = max(self._longest_gap, now - self.last_heard)
        self.last_heard = now

    def report(self, *, done: bool = False) -> None:
        counts: dict[str, float | None] = {
            "sent": len(self._answered),
            "received": len(self._rtts),
            "duplicates": self._duplicates,
            "errors": self._errors,
            "longest_gap": self._longest_gap,
            "done": done,
        }
        if done:
            counts["rtt_median"] = statistics.median(self._rtts) if self._rtts else None
            counts["rtt_max"] = max(self._rtts, default=None)
        sys.stdout.write(json.dumps(counts) + "\n")
        sys.stdout.flush()


def internet_checksum(data: bytes) -> int:
    """RFC 1071; `data` has an even length."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def main(address: str, interval: float) -> None:
    stopped: list[int] = []
    wakeup, waker = socket.socketpair()
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    pinger = Pinger(address)
    next_send = next_report = time.monotonic()
    while not stopped:
        now = time.monotonic()
        if now >= next_send:
            pinger.send()
            next_send = max(next_send + interval, now)
        if now >= next_report:
            pinger.report()
            next_report = now + REPORT_EVERY_S
        select.select([pinger.socket, wakeup], [], [], max(0.0, next_send - time.monotonic()))
        pinger.receive()
    deadline = time.monotonic() + LAST_REPLIES_S
    while pinger.outstanding and (left := deadline - time.monotonic()) > 0:
        select.select([pinger.socket], [], [], left)
        pinger.receive()
    if pinger.outstanding:  # the silence up to the last request counts as well
        pinger.heard(max(deadline - LAST_REPLIES_S, pinger.last_heard))
    pinger.report(done=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
