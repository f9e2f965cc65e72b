"""What must hold of any bytes that RSP's codec or a gateway is given."""

from typing import Final

import numpy as np

from achelous_gateway.changes import ChangeLogs
from achelous_gateway.rsp_server import RspServer, Stands
from achelous_gateway.stats import Stats
from achelous_shared import rsp, rsp_batch, rsp_changes
from achelous_shared.names import VNI_MAX
from achelous_shared.route_following.table import RouteTable
from achelous_shared.routes import ROUTE, RouteOp, ip_bytes
from achelous_shared.rsp import MessageType, RspError
from achelous_shared.rsp_hash import destination_hashes

VNI: Final = 7
_ENTRY_TYPES: Final = (MessageType.REQUEST, MessageType.REPLY, MessageType.PUSH)


def server() -> RspServer:
    """A gateway of one VPC, 7, with one route, 10.0.0.9, and one change to remember."""
    table, changes = RouteTable(16), ChangeLogs()
    delta = np.zeros(1, ROUTE)
    delta["ip"] = np.frombuffer(ip_bytes("10.0.0.9"), np.uint8)
    delta["op"], delta["vtep"], delta["revision"] = RouteOp.UPSERT, 3, 4
    table.apply(VNI, delta)
    stands: Stands = np.zeros(VNI_MAX + 2, np.int64)
    stands[VNI] = 5
    changes.begin(VNI, 2)
    changes.append(VNI, 4, destination_hashes(VNI, delta["ip"]), 0)
    return RspServer(table, stands, changes, Stats(), mtu=1500, whole=lambda: True)


class RspTarget:
    """Raises AssertionError, or whatever should not have been raised, where it does not hold."""

    def __init__(self) -> None:
        self._server = server()

    def __call__(self, data: bytes) -> None:
        """What is accepted is the canonical form of itself; the rest is refused by `RspError`."""
        for kind in _ENTRY_TYPES:
            self._entries(kind, data)
        self._watches(data)
        self._changes(data)
        [together] = rsp_batch.decode_requests([data]).heads
        assert (together is None) == (not self._accepts(data))
        self._answered(data)

    def _entries(self, kind: MessageType, data: bytes) -> None:
        try:
            message = rsp.decode(data, kind)
        except RspError:
            return
        assert rsp.encode(kind, message.id, message.entries, message.options) == data

    def _watches(self, data: bytes) -> None:
        try:
            head, entries = rsp_changes.decode_watches(data)
        except RspError:
            return
        assert rsp_changes.encode_watches(head.id, entries, head.options) == data

    def _changes(self, data: bytes) -> None:
        try:
            found = rsp_changes.decode_changes(data)
        except RspError:
            return
        assert sum(len(hashes) for _, hashes, _ in found.each()) == len(found.hashes)
        again = rsp_changes.encode_changes(
            found.head.id, found.entries, found.hashes, found.ages_ms, found.head.options
        )
        assert again == data

    def _accepts(self, data: bytes) -> bool:
        try:
            rsp.decode(data, MessageType.REQUEST)
        except RspError:
            return False
        return True

    def _answered(self, data: bytes) -> None:
        """Whatever is asked, the answer is a message, and has an entry for each one asked."""
        [answer] = self._server.answer([data])
        if answer[3] == MessageType.CHANGES:
            _, asked = rsp_changes.decode_watches(data)
            assert len(rsp_changes.decode_changes(answer).entries) == len(asked)
        else:
            replies = rsp.decode(answer, MessageType.REPLY).entries
            assert not len(replies) or len(replies) == data[0] << 8 | data[1]
