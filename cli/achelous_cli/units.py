"""Figures for people."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from achelous_cli.failures import Document
from achelous_cli.output import plain


def seconds(value: float) -> str:
    """A duration in the unit that leaves one to three digits before the point."""
    for limit, factor, unit in ((1e-3, 1e6, "us"), (1.0, 1e3, "ms"), (120.0, 1.0, "s")):
        if value < limit:
            return f"{value * factor:.3g} {unit}"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def millis(value: float) -> str:
    return seconds(value / 1e3)


def micros(value: float) -> str:
    return seconds(value / 1e6)


def percent(value: float) -> str:
    """A share of 0..1."""
    return f"{value:.0%}"


def volume(value: float) -> str:
    """A number of bytes, in decimal units as links are sold."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.3g} {unit}"


def when(value: str) -> str:
    """A time as the API writes it, to the second."""
    return value[:19].replace("T", " ")


def addresses(vnics: Sequence[Document]) -> str:
    """The addresses of an instance's vNICs."""
    return ",".join(plain(vnic[ip]) for vnic in vnics for ip in ("ip", "ip6") if vnic.get(ip))


def both(values: Sequence[Any]) -> str:
    """The two directions of a flow, the initiator's first."""
    return " / ".join(map(plain, values))


def both_volumes(values: Sequence[float]) -> str:
    return " / ".join(map(volume, values))


def both_rates(values: Sequence[float]) -> str:
    """Bits a second, each way."""
    return " / ".join(f"{volume(value)[:-1]}bit/s" for value in values)


def both_counts(values: Sequence[float]) -> str:
    """Packets a second, each way."""
    return " / ".join(f"{value:.0f}" for value in values)


def clock(value: float) -> str:
    """A Unix time as this machine's time of day, to the millisecond."""
    moment = datetime.fromtimestamp(value).astimezone()
    return moment.strftime("%H:%M:%S.") + f"{moment.microsecond // 1000:03d}"
