"""Rules in words and in numbers."""

import pytest

from achelous_controller.domain.rules import Protocol, ports, protocol_name, protocol_number


@pytest.mark.parametrize("protocol", [0, 1, 6, 17, 47, 255])
def test_a_protocol_keeps_its_number_through_its_name(protocol: int) -> None:
    assert protocol_number(protocol_name(protocol)) == protocol


@pytest.mark.parametrize(
    ("given", "meant"),
    [((None, None), (0, 65535)), ((80, None), (80, 80)), ((80, 90), (80, 90)), ((0, 0), (0, 0))],
)
def test_ports_may_be_all_one_or_a_range(
    given: tuple[int | None, int | None], meant: tuple[int, int]
) -> None:
    assert ports(Protocol.TCP, *given) == meant


@pytest.mark.parametrize(
    ("protocol", "given", "hint"),
    [
        (Protocol.UDP, (90, 80), "above"),
        (Protocol.UDP, (None, 80), "needs a port_min"),
        (Protocol.ICMP, (8, None), "icmp has no ports"),
        (Protocol.ANY, (1, 2), "any has no ports"),
        (47, (1, None), "47 has no ports"),
    ],
)
def test_ports_that_mean_nothing_are_refused(
    protocol: int, given: tuple[int | None, int | None], hint: str
) -> None:
    with pytest.raises(ValueError, match=hint):
        ports(protocol, *given)
