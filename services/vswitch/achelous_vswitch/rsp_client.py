"""Asking gateways for routes by RSP: a live one, and if it is silent the next one."""

import itertools
import logging
import time

import numpy as np

from achelous_shared import rsp, subjects
from achelous_shared.bus import Bus, BusError
from achelous_vswitch.gateways import Gateways
from achelous_vswitch.metrics import Metrics

log = logging.getLogger(__name__)


class RspClient:
    """RSP requests over the bus, each answered within ``timeout`` seconds by one gateway or not."""

    def __init__(self, bus: Bus, gateways: Gateways, timeout: float, metrics: Metrics) -> None:
        self._bus = bus
        self._gateways = gateways
        self._timeout = timeout
        self._metrics = metrics
        self._ids = itertools.count(1)

    async def ask(self, entries: rsp.Entries) -> rsp.Entries | None:
        """The reply entries, one for each of ``entries`` (1..`rsp.MAX_ENTRIES`) in their order.

        None if no gateway answered. A reply that does not echo what was asked counts as none.
        While the bus is away nothing is asked: it would all be sent when it is back.
        """
        if not self._bus.connected:
            return None
        for gateway in self._gateways.in_turn():
            started = time.monotonic()
            message_id = next(self._ids) & 0xFFFFFFFF
            request = rsp.encode(rsp.MessageType.REQUEST, message_id, entries)
            try:
                subject = subjects.rsp(gateway.gateway_id)
                data = await self._bus.request(subject, request, timeout=self._timeout)
                replies = _checked(data, message_id, entries)
            except BusError:
                self._metrics.rsp.labels("timeout").inc()
            except rsp.RspError as error:
                self._metrics.rsp.labels("garbage").inc()
                log.warning("RSP reply of gateway %s: %s", gateway.name, error)
            else:
                self._metrics.rsp.labels("answered").inc()
                self._metrics.rsp_s.observe(time.monotonic() - started)
                return replies
        return None


def _checked(data: bytes, message_id: int, entries: rsp.Entries) -> rsp.Entries:
    message = rsp.decode(data, rsp.MessageType.REPLY)
    if message.id != message_id:
        raise rsp.RspError(f"id {message.id}, expected {message_id}")
    if len(message.entries) != len(entries):
        raise rsp.RspError(f"{len(message.entries)} entries in answer to {len(entries)}")
    same = np.array_equal(message.entries["vni"], entries["vni"])
    if not same or not np.array_equal(message.entries["key"], entries["key"]):
        raise rsp.RspError("its entries are not those that were asked for, in their order")
    return message.entries
