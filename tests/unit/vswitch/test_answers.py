"""What a gateway's answers mean for the entries that were asked about."""

import numpy as np
import pytest
from vswitch_memory import layout

from achelous_shared import rsp
from achelous_shared.routes import ip_bytes
from achelous_vswitch.answers import judge, usable

OWN = int.from_bytes(bytes([198, 18, 0, 1]))
MAC = np.frombuffer(b"\2\0\0\0\0\7", np.uint8)


def reply(
    vtep: str = "198.18.0.9",
    *,
    kind: int = rsp.ReplyType.ROUTE,
    revision: int = 5,
    mtu: int = 1500,
    identity: int = 3,
) -> rsp.Entries:
    entry = np.zeros(1, rsp.REPLY)
    entry["type"], entry["revision"], entry["mtu"] = kind, revision, mtu
    entry["next_hop"] = np.frombuffer(ip_bytes(vtep), np.uint8)
    entry["mac"], entry["identity"] = MAC, identity
    return entry


def held(revision: int = 5) -> np.ndarray:
    entry = np.zeros(1, layout("ach_fc_entry"))
    entry["vtep"] = int.from_bytes(bytes([198, 18, 0, 9]))
    entry["mac"], entry["mtu"], entry["revision"] = MAC, 1500, revision
    entry["identity"] = 3
    return entry


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        (reply(), "same"),
        (reply(revision=6), "same"),
        (reply("198.18.0.8"), "changed"),
        (reply(mtu=1400), "changed"),
        (reply(identity=4), "changed"),
        (reply(kind=rsp.ReplyType.NO_ROUTE, revision=0), "gone"),
        (reply(kind=rsp.ReplyType.UNKNOWN_VNI, revision=0), "gone"),
        (reply("198.18.0.1"), "gone"),  # it is on this host now
        (reply("2001:db8::1"), "gone"),  # not an underlay that we can reach
        (reply(revision=4), None),
        (reply("198.18.0.8", revision=4), None),
        (reply(kind=rsp.ReplyType.NO_ROUTE, revision=4), None),
    ],
)
def test_an_answer_has_one_meaning_or_is_too_old(answer: rsp.Entries, meaning: str | None) -> None:
    verdict = judge(held(), answer, OWN)
    found = [name for name in ("same", "changed", "gone") if getattr(verdict, name)[0]]
    assert found == ([meaning] if meaning else [])


def test_only_routes_to_other_hosts_are_worth_keeping() -> None:
    replies = np.concatenate(
        [reply(), reply("198.18.0.1"), reply("0.0.0.0"), reply(kind=rsp.ReplyType.NO_ROUTE)]  # noqa: S104
    )
    assert usable(replies, OWN).tolist() == [True, False, False, False]
