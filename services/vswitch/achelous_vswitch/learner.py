"""Learning: what the packet path had to relay is asked of a gateway, and kept in the cache."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Final

import numpy as np

from achelous_shared import rsp
from achelous_shared.rsp import ReplyType
from achelous_shared.rsp_hash import destination_hashes
from achelous_vswitch import answers
from achelous_vswitch.dataplane import Array, Dataplane
from achelous_vswitch.fc import ForwardingCache
from achelous_vswitch.metrics import Metrics
from achelous_vswitch.negatives import Negatives
from achelous_vswitch.rsp_client import RspClient
from achelous_vswitch.settings import VswitchSettings

GATHER_S: Final = 0.002
"""What comes so soon after others gathers, to be asked about together; after a calm none waits."""
_IN_FLIGHT: Final = 8
_UNKNOWN_VNI: Final = np.uint8(ReplyType.UNKNOWN_VNI)
_VNI: Final = 4
_KEY_END: Final = rsp.REQUEST.itemsize
"""In an entry: its VNI, the type of its key and the key are from here to there."""
_READ: Final = 8 * rsp.MAX_ENTRIES


class Learner:
    """Turns learn events into entries of the cache, in batches."""

    def __init__(
        self,
        dataplane: Dataplane,
        cache: ForwardingCache,
        negatives: Negatives,
        client: RspClient,
        settings: VswitchSettings,
        metrics: Metrics,
        ahead: Callable[[], Collection[int]] = tuple,
    ) -> None:
        """``ahead``: VNIs whose routes are programmed ahead, and not learned."""
        self._dataplane = dataplane
        self._cache = cache
        self._client = client
        self._metrics = metrics
        self._ahead = ahead
        self._negatives = negatives
        self._per_vnic = settings.max_fc_per_vnic
        self._asking: dict[bytes, int] = {}
        """What is being asked for, and for which vNIC."""

    async def run(self) -> None:
        """Learn until cancelled."""
        in_flight = asyncio.Semaphore(_IN_FLIGHT)
        read_at = float("-inf")
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._readable()
                if (early := read_at + GATHER_S - time.monotonic()) > 0:
                    await asyncio.sleep(early)
                read_at = time.monotonic()
                wanted = self.select(self._dataplane.learn.read(_READ), read_at)
                for batch in self._client.batches(wanted):
                    await in_flight.acquire()
                    task = tasks.create_task(self._learn(batch))
                    task.add_done_callback(lambda _: in_flight.release())

    def select(self, events: Array, now: float) -> rsp.Entries:
        """Request entries for the destinations in ``events`` that are worth asking for.

        Each of them once, and none that is being asked for already or had no route just now. They
        count as being asked for from here on, until `_learn` has ended for them.
        """
        self._metrics.learn_events.inc(len(events))
        if ahead := self._ahead():
            events = events[~np.isin(events["vni"], list(ahead))]
        wanted = rsp.requests(events["vni"], events["ip"])
        fresh = []
        room = self._room(events["port"])
        ports, denied = events["port"].tolist(), self._denied(wanted, now)
        for place, (key, port) in enumerate(zip(_keys(wanted), ports, strict=True)):
            if key in self._asking or denied[place]:
                continue
            if room[port] <= 0:
                self._metrics.learned.labels("vNIC has enough").inc()
                continue
            room[port] -= 1
            self._asking[key] = port
            fresh.append(place)
        return wanted[fresh]

    async def _learn(self, wanted: rsp.Entries) -> None:
        try:
            asked_ns = time.monotonic_ns()
            replies = await self._client.ask(wanted)
            if replies is not None:
                self.take(replies, asked_ns)
        finally:
            for key in _keys(wanted):
                self._asking.pop(key, None)

    def take(self, replies: rsp.Entries, asked_ns: int) -> None:
        """Keep the routes among the replies, and remember which destinations have none."""
        routed = answers.usable(replies, int(self._dataplane.config["vtep"][0]))
        self._cache.make_room()
        found = replies[routed]
        for key, (vni, ip, route) in zip(_keys(found), answers.routes(found), strict=True):
            kept = self._cache.put(vni, ip, route, asked_ns, self._asking.get(key, 0))
            self._metrics.learned.labels("route" if kept else "no room").inc()
        if len(found) == len(replies):
            return
        # Of a VPC that a gateway does not know there is no revision to be told of changes from.
        self._deny(replies[~routed & (replies["type"] != _UNKNOWN_VNI)])
        self._metrics.learned.labels("no route").inc(len(replies) - len(found))

    def _deny(self, replies: rsp.Entries) -> None:
        now = time.monotonic()
        hashes = destination_hashes(replies["vni"], replies["key"])
        columns = (replies["vni"].tolist(), hashes.tolist(), replies["as_of"].tolist())
        for vni, value, as_of in zip(*columns, strict=True):
            self._negatives.add(vni, value, as_of, now)

    def _denied(self, wanted: rsp.Entries, now: float) -> list[bool]:
        """Of each entry, whether its destination had no route just now."""
        if not len(self._negatives):
            return [False] * len(wanted)
        hashes = destination_hashes(wanted["vni"], wanted["key"])
        pairs = zip(wanted["vni"].tolist(), hashes.tolist(), strict=True)
        return [self._negatives.holds(vni, value, now) for vni, value in pairs]

    def _room(self, ports: Array) -> dict[int, int]:
        """How many more destinations each of these vNICs may have learned."""
        asking = Counter(self._asking.values())
        return {
            port: self._per_vnic - self._cache.owned_by(port) - asking[port]
            for port in set(ports.tolist())
        }

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._dataplane.learn.fd, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._dataplane.learn.fd)


def _keys(entries: rsp.Entries) -> list[bytes]:
    """What names the destination of each entry of a request or a reply, as bytes."""
    data, size = entries.tobytes(), entries.itemsize
    return [data[at + _VNI : at + _KEY_END] for at in range(0, len(data), size)]
