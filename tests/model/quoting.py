"""The packet that an ICMP error is about, as far as it is quoted (RFC 792, RFC 4443)."""

from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from model.reading import ECHO, Drop, Ports, need, number, walk
from model.wire import ICMP, ICMPV6, TCP, UDP, Address


class Quote(NamedTuple):
    """The packet that an ICMP error is about."""

    source: Address
    to: Address
    ports: Ports


def read_quote(version: int, data: bytes, about: Address) -> Quote:
    """From the bytes behind the error's header, which is sent to `about`: it alone may be told."""
    need(data, 20 if version == 4 else 40)
    if data[0] >> 4 != version:
        raise Drop("UNRELATED_ICMP")
    source: Address
    to: Address
    if version == 4:
        if data[0] & 15 < 5 or number(data, 6) & 0x1FFF:
            raise Drop("UNRELATED_ICMP")
        source, to = IPv4Address(data[12:16]), IPv4Address(data[16:20])
        protocol, data = data[9], data[(data[0] & 15) * 4 :]
    else:
        source, to = IPv6Address(data[8:24]), IPv6Address(data[24:40])
        try:
            chain = walk(data[6], data[40:], quoted=True)
        except Drop as error:
            raise Drop("UNRELATED_ICMP") from error
        if chain.offset:
            raise Drop("UNRELATED_ICMP")
        protocol, data = chain.protocol, data[40 + chain.at :]
    if source != about:
        raise Drop("UNRELATED_ICMP")
    return Quote(source, to, _quoted_ports(protocol, data))


def _quoted_ports(protocol: int, data: bytes) -> Ports:
    if protocol not in (TCP, UDP, ICMP, ICMPV6):
        return Ports(protocol)
    need(data, 8)
    if protocol in (TCP, UDP):
        return Ports(protocol, number(data, 0), number(data, 2))
    if data[0] not in ECHO[protocol]:
        raise Drop("UNRELATED_ICMP")
    return Ports(protocol, number(data, 4), number(data, 4), (data[0], data[1]))
