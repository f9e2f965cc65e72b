"""Routes that gateways send unasked, because they relayed a packet of this host."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from typing import Final

import numpy as np

from achelous_shared import rsp, subjects
from achelous_shared.bus import Bus
from achelous_shared.rsp import MessageType, RspError
from achelous_vswitch import answers
from achelous_vswitch.dataplane import Dataplane
from achelous_vswitch.fc import ForwardingCache
from achelous_vswitch.metrics import Metrics

log = logging.getLogger(__name__)

_LOOK_S: Final = 0.2


class Pushed:
    """Takes what is valid: routes to other hosts, in VPCs that have a vNIC here."""

    def __init__(
        self,
        dataplane: Dataplane,
        cache: ForwardingCache,
        metrics: Metrics,
        ahead: Callable[[], Collection[int]] = tuple,
    ) -> None:
        """``ahead``: VNIs whose routes are programmed ahead, and not taken one by one."""
        self._dataplane = dataplane
        self._cache = cache
        self._metrics = metrics
        self._ahead = ahead

    async def run(self, bus: Bus, own_vtep: Callable[[], int | None]) -> None:
        """Listen as the host of this VTEP, whichever it is at the time, until cancelled."""
        while True:
            vtep = own_vtep()
            if vtep is None:
                await asyncio.sleep(_LOOK_S)
                continue
            listening = asyncio.create_task(bus.listen(subjects.push(vtep), self.on_push))
            try:
                while own_vtep() == vtep and not listening.done():
                    await asyncio.wait([listening], timeout=_LOOK_S)
                if listening.done():
                    listening.result()
            finally:
                listening.cancel()

    async def on_push(self, data: bytes) -> None:
        """Take one message; what is no PUSH is counted and changes nothing."""
        try:
            entries = rsp.decode(data, MessageType.PUSH).entries
        except RspError as error:
            self._metrics.rejected.labels("garbage").inc()
            log.warning("pushed routes ignored: %s", error)
            return
        self._metrics.rsp_bytes.labels("received").inc(len(data))
        ahead = self._ahead()
        vnis = {
            vni
            for vni in np.unique(entries["vni"]).tolist()
            if self._local(vni) and vni not in ahead
        }
        known = np.isin(entries["vni"], list(vnis))
        usable = answers.usable(entries, int(self._dataplane.config["vtep"][0]))
        self._cache.make_room()
        now_ns = time.monotonic_ns()
        for vni, ip, route in answers.routes(entries[known & usable]):
            kept = self._cache.put(vni, ip, route, now_ns)
            self._metrics.learned.labels("pushed" if kept else "no room").inc()

    def _local(self, vni: int) -> bool:
        return self._dataplane.vnis.lookup(np.uint32(vni)) is not None
