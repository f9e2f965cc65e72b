"""What the answers of a gateway mean for the entries that were asked about: pure and vectorised."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from achelous_shared import rsp
from achelous_vswitch.dataplane import Array
from achelous_vswitch.fc import Route

_ROUTE: Final = np.uint8(rsp.ReplyType.ROUTE)

Mask = npt.NDArray[np.bool_]

_IPV4_MAPPED: Final = np.frombuffer(b"\0" * 10 + b"\xff\xff", np.uint8)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of each entry (n,), exactly one of these, or none: an answer too old to be acted on."""

    same: Mask
    """Confirmed."""
    changed: Mask
    """The route is another one now."""
    gone: Mask
    """There is no route to another host any more."""


def usable(replies: rsp.Entries, own_vtep: int) -> Mask:
    """Which replies name another host: a route to this one is for the endpoints alone."""
    vteps = vteps_of(replies)
    mapped = (replies["next_hop"][:, :12] == _IPV4_MAPPED).all(axis=1)
    routed = replies["type"] == _ROUTE
    return np.asarray(routed & mapped & (vteps != 0) & (vteps != own_vtep))


def judge(held: Array, replies: rsp.Entries, own_vtep: int) -> Verdict:
    """Compare entries as they are held now (n,) with their replies (n,).

    Gateways may be out of step with each other for a moment. An answer of a lower revision than the
    held one's is by one that lags behind, and does not undo what a better informed one said; a
    revision of 0 means that it does not say.
    """
    revisions = replies["revision"].astype(np.uint64)
    late = (revisions != 0) & (revisions < held["revision"])
    routed = usable(replies, own_vtep)
    alike = (
        (held["vtep"] == vteps_of(replies))
        & (held["mac"] == replies["mac"]).all(axis=1)
        & (held["mtu"] == replies["mtu"])
        & (held["identity"] == replies["identity"])
    )
    return Verdict(
        same=routed & alike & ~late, changed=routed & ~alike & ~late, gone=~routed & ~late
    )


def vteps_of(replies: rsp.Entries) -> npt.NDArray[np.uint32]:
    """The underlay addresses of the next hops (n,), as integers."""
    last = np.ascontiguousarray(replies["next_hop"][:, 12:])
    return last.view(">u4").reshape(-1).astype(np.uint32)


def routes(replies: rsp.Entries) -> Iterator[tuple[int, bytes, Route]]:
    """(vni, address, route) of each reply that holds one."""
    for reply in replies:
        route = Route(
            reply["next_hop"][12:].tobytes(),
            reply["mac"].tobytes(),
            int(reply["mtu"]),
            int(reply["revision"]),
            int(reply["identity"]),
            int(reply["as_of"]),
        )
        yield int(reply["vni"]), reply["key"].tobytes(), route
