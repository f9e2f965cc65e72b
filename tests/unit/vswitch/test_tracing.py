"""How the bytes of a traced run are told."""

import numpy as np
import pytest

from achelous_shared.routes import ip_bytes
from achelous_shared.tracing import describe
from achelous_vswitch.classifier import Rule
from achelous_vswitch.tracer import rule_text

ENTRY = np.dtype(
    [
        ("generation", "<u4"), ("ip", "u1", (16,)), ("ends", "u1", (2, 16)), ("mac", "u1", (6,)),
        ("vtep", ">u4"), ("packets", "<u8", (2,)), ("created_ns", "<u8"), ("reserved", "<u4"),
    ]
)  # fmt: skip


def test_a_record_is_told_with_addresses_and_without_times() -> None:
    record = np.zeros(1, ENTRY)
    record["ip"] = np.frombuffer(ip_bytes("10.0.0.5"), np.uint8)
    record["ends"][0, 1] = np.frombuffer(ip_bytes("fd00::1"), np.uint8)
    record["vtep"] = 0xC6120001
    record["packets"] = (1, 2)
    assert describe(record[0], ENTRY, "") == {
        "ip": "10.0.0.5",
        "ends": ["::", "fd00::1"],
        "mac": "00:00:00:00:00:00",
        "vtep": "198.18.0.1",
        "packets": [1, 2],
    }
    assert describe(record[0], ENTRY, "", ("vtep", "none")) == {"vtep": "198.18.0.1"}


def test_a_number_is_told_by_the_name_of_what_it_is() -> None:
    assert describe(np.uint32(7), np.dtype("<u4"), "slot") == {"slot": 7}
    big = np.dtype(">u4")
    assert describe(np.array(0xC6120001, big)[()], big, "vtep") == {"vtep": "198.18.0.1"}


@pytest.mark.parametrize(
    ("rule", "outbound", "text"),
    [
        (Rule(10, False, 6, 81, 81, ip_bytes("10.0.0.0"), 104), False,
         "deny tcp 81 from 10.0.0.0/8, priority 10"),
        (Rule(1000, True, 17, 53, 99, ip_bytes("fd00::"), 64), True,
         "allow udp 53-99 to fd00::/64, priority 1000"),
        (Rule(1000, True, 0, 0, 65535, bytes(16), 0), True,
         "allow any protocol to ::/0, priority 1000"),
        (Rule(1000, True, 1, 8 << 8, 8 << 8 | 255, bytes(10) + b"\xff\xff" + bytes(4), 96), False,
         "allow icmp type 8 from 0.0.0.0/0, priority 1000"),
        (Rule(5, True, 47, 0, 65535, bytes(16), 0, False, (3,)), False,
         "allow 47 from members of its remote group, priority 5"),
    ],
)  # fmt: skip
def test_a_rule_is_told_as_one_would_say_it(rule: Rule, outbound: bool, text: str) -> None:
    assert rule_text(rule, outbound=outbound) == text
