"""Numbers that the agent shares with the C side and BTF does not carry."""

import re
from pathlib import Path

import numpy as np
from vswitch_memory import layout

from achelous_shared.bpf import enum_of, object_path
from achelous_shared.names import GATEWAY_SHARDS
from achelous_vswitch import gateways, ports, probe, sessions

HEADER = (Path(__file__).parents[3] / "shared/bpf/ach_layout.h").read_text()


def defined(name: str) -> int:
    found = re.search(rf"#define {name}\s+(\w+)", HEADER)
    assert found is not None, f"{name} is not in ach_layout.h"
    return int(found[1].removesuffix("u"), 0)


def test_enums_are_those_of_the_packet_path() -> None:
    vteps = enum_of(object_path("vswitch"), "ach_vtep_kind")
    assert vteps == {"ACH_VTEP_HOST": gateways.VTEP_HOST, "ACH_VTEP_GATEWAY": gateways.VTEP_GATEWAY}
    flags = enum_of(object_path("vswitch"), "ach_session_flags")
    for name, value in flags.items():
        assert getattr(sessions, name.removeprefix("ACH_SESSION_")) == value
    states = enum_of(object_path("vswitch"), "ach_session_state")
    names = [name.removeprefix("ACH_STATE_").removeprefix("TCP_") for name in states]
    assert names == [*(state.name for state in sessions.State), "ACH_SESSION_STATES"]
    assert enum_of(object_path("vswitch"), "ach_port_flags") == {"ACH_PORT_PEER": ports.PORT_PEER}


def test_a_probe_is_laid_out_as_the_gateways_read_it() -> None:
    assert (defined("ACH_PROBE_PORT"), defined("ACH_PROBE_MAGIC")) == (probe.PORT, probe.MAGIC)
    fields = re.search(r"struct ach_probe \{(.*?)\};", HEADER, re.DOTALL)
    assert fields is not None
    sizes = {"__be16": 2, "__be32": 4, "__be64": 8, "__u8": 1}
    found = [sizes[kind] for kind in re.findall(r"^\s+(__\w+) \w+;", fields[1], re.MULTILINE)]
    letters = {"I": 4, "B": 1, "H": 2, "Q": 8}
    assert found == [letters[letter] for letter in probe.LAYOUT.format[1:]]


def test_an_answer_is_read_back_and_anything_else_is_none() -> None:
    asked = probe.request(7, 123)
    assert probe.parse(asked) is None  # a request is no answer
    answer = bytearray(asked)
    answer[5] = 2
    assert probe.parse(bytes(answer)) == probe.Answer(7, 0, 123)
    assert probe.parse(bytes(answer[:-1])) is None
    assert probe.parse(b"\0" * len(answer)) is None


def test_there_are_as_many_gateway_shards() -> None:
    assert defined("ACH_GATEWAY_SHARDS") == GATEWAY_SHARDS


def test_hops_and_counters_are_as_assumed() -> None:
    assert defined("ACH_HOP_LOCAL") == sessions.HOP_LOCAL
    counters = layout("ach_port_counters")
    fields = [field[0] for field in (counters.fields or {}).values()]
    assert {field.base for field in fields} == {np.dtype("<u8")}
    assert counters.itemsize == sum(field.itemsize for field in fields)
