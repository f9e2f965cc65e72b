"""What the tools that run in guests found out, and how their output is read."""

import json
import re
from dataclasses import dataclass
from typing import Any, Self

_RTT = re.compile(rb"time=([\d.]+) ms")
_SUMMARY = re.compile(rb"(\d+) packets transmitted, (\d+) received")


@dataclass(frozen=True, slots=True)
class PingResult:
    """`rtts` in seconds, in the order of arrival."""

    sent: int
    received: int
    rtts: tuple[float, ...]

    @property
    def lost(self) -> int:
        return self.sent - self.received

    @classmethod
    def parse(cls, output: bytes) -> Self:
        """From the output of iputils ping."""
        summary = _SUMMARY.search(output)
        if summary is None:
            raise ValueError(f"ping gave no summary, but: {output!r}")
        rtts = tuple(float(rtt) / 1000 for rtt in _RTT.findall(output))
        return cls(int(summary[1]), int(summary[2]), rtts)


@dataclass(frozen=True, slots=True)
class PingCount:
    """What a Pinger has counted.

    `longest_gap` is the longest time without a reply, in seconds; `errors` counts requests that
    the guest's kernel refused to send, and ICMP errors. The RTTs, in seconds, are known at the end,
    if there was a reply.
    """

    sent: int
    received: int
    duplicates: int
    errors: int
    longest_gap: float
    done: bool
    rtt_median: float | None = None
    rtt_max: float | None = None

    @property
    def lost(self) -> int:
        return self.sent - self.received


@dataclass(frozen=True, slots=True)
class CurlResult:
    """One HTTP request. `status` is 0 and `error` says why when there was no answer."""

    status: int
    body: bytes
    seconds: float
    bytes_per_second: float
    error: str

    @property
    def ok(self) -> bool:
        return self.status == 200

    @classmethod
    def parse(cls, body: bytes, report: bytes) -> Self:
        """`report` is what curl writes for `%{json}`."""
        fields: dict[str, Any] = json.loads(report)
        return cls(
            status=fields["http_code"],
            body=body,
            seconds=fields["time_total"],
            bytes_per_second=fields["speed_download"],
            error=fields["errormsg"] or "",
        )


@dataclass(frozen=True, slots=True)
class IperfResult:
    """As the receiver saw it. TCP has `retransmits`; UDP has `packets`, `lost` and `jitter_s`."""

    bits_per_second: float
    seconds: float
    retransmits: int = 0
    packets: int = 0
    lost: int = 0
    jitter_s: float = 0.0

    @classmethod
    def parse(cls, report: bytes) -> Self:
        """From iperf3's JSON. Raises RuntimeError with iperf3's own words when it failed."""
        fields: dict[str, Any] = json.loads(report)
        if "error" in fields:
            raise RuntimeError(f"iperf3: {fields['error']}")
        end = fields["end"]
        received = end["sum_received"]
        if "packets" not in received:
            return cls(
                bits_per_second=received["bits_per_second"],
                seconds=received["seconds"],
                retransmits=end["sum_sent"].get("retransmits", 0),
            )
        return cls(
            bits_per_second=received["bits_per_second"],
            seconds=received["seconds"],
            packets=received["packets"],
            lost=received["lost_packets"],
            jitter_s=received["jitter_ms"] / 1000,
        )
