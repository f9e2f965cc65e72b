"""Floods the network from a guest, as fast as one CPU can: `flooder.py KIND FROM TO SECONDS`.

KIND is `syn` (to port 80 of one address, the answers of which the guest is to ignore), `udp` (to
all ports of one address), or `scan` (SYNs to all addresses of its /16). numpy makes the frames, and
sendmmsg sends them; how many is written at the end.
"""

import ctypes
import socket
import sys
import time
from ipaddress import IPv4Address
from typing import Any, Final

import numpy as np

from achelous_shared.names import ROUTER_MAC

BATCH: Final = 256
TCP, UDP = 6, 17
_FORCED_BUFFER: Final = 32  # SO_SNDBUFFORCE: it never waits for what is on its way
_SYN: Final = bytes((0x50, 0x02, 0xFF, 0xFF, 0, 0, 0, 0))
_PAYLOAD: Final = b"anyone?!"
Array = np.ndarray[Any, Any]


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr"""

    _fields_ = (
        ("name", ctypes.c_void_p), ("name_len", ctypes.c_uint32), ("iov", ctypes.c_void_p),
        ("iov_len", ctypes.c_size_t), ("control", ctypes.c_void_p),
        ("control_len", ctypes.c_size_t), ("flags", ctypes.c_int),
    )  # fmt: skip


class _Message(ctypes.Structure):
    """struct mmsghdr"""

    _fields_ = (("header", _Header), ("sent", ctypes.c_uint))


def template(kind: str, mac: bytes, source: IPv4Address, target: IPv4Address) -> bytes:
    """A frame with ports and checksums 0."""
    proto = UDP if kind == "udp" else TCP
    segment = bytes((0, 0, 0, 0, 0, 16, 0, 0)) + _PAYLOAD if proto == UDP else bytes(12) + _SYN
    ip = (
        b"\x45\0"
        + (20 + len(segment)).to_bytes(2, "big")
        + b"\0\0\x40\0\x40"
        + bytes((proto, 0, 0))
    )
    return ROUTER_MAC + mac + b"\x08\0" + ip + source.packed + target.packed + segment


def folded(words: Array) -> Array:
    """The Internet checksum of each row of 16-bit words."""
    sums = words.astype(np.uint32).sum(axis=1)
    sums = (sums & 0xFFFF) + (sums >> 16)
    checksums: Array = (~(sums + (sums >> 16)) & 0xFFFF).astype(">u2")
    return checksums


def vary(frames: Array, kind: str, first: int) -> None:
    """The next flows: other ports or, for a scan, other addresses; checksums are right."""
    numbers = first + np.arange(len(frames))
    words = frames.view(">u2")
    if kind == "scan":
        words[:, 16] = 1 + numbers % 0xFFFD
    words[:, 12] = 0
    words[:, 12] = folded(words[:, 7:17])
    words[:, 17] = 1024 + numbers % 60_000
    words[:, 18] = 80 if kind == "syn" else 1 + numbers // 60_000 % 65_000
    at = 20 if kind == "udp" else 25
    words[:, at] = 0
    pseudo = words[:, 13:17].sum(axis=1) + frames[0, 23] + (frames.shape[1] - 34)
    words[:, at] = folded(np.column_stack((words[:, 17:], pseudo & 0xFFFF, pseudo >> 16)))


def flood(link: socket.socket, kind: str, frame: bytes, seconds: float) -> int:
    """Returns how many frames were sent."""
    frames = np.tile(np.frombuffer(frame, np.uint8), (BATCH, 1))
    vectors = (_Iovec * BATCH)()
    messages = (_Message * BATCH)()
    for number in range(BATCH):
        vectors[number] = _Iovec(frames.ctypes.data + number * len(frame), len(frame))
        messages[number].header.iov = ctypes.addressof(vectors[number])
        messages[number].header.iov_len = 1
    send = ctypes.CDLL(None).sendmmsg
    until, sent, turn = time.monotonic() + seconds, 0, 0
    while time.monotonic() < until:
        vary(frames, kind, turn * BATCH)
        sent += max(0, send(link.fileno(), messages, BATCH, 0))
        turn += 1
    return sent


def main(kind: str, source: str, target: str, seconds: float) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.setsockopt(socket.SOL_SOCKET, _FORCED_BUFFER, 1 << 26)
        link.bind(("eth0", 0))
        mac: bytes = link.getsockname()[4]
        frame = template(kind, mac, IPv4Address(source), IPv4Address(target))
        sys.stdout.write("flooding\n")
        sys.stdout.flush()
        sys.stdout.write(f"sent {flood(link, kind, frame, seconds)}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
