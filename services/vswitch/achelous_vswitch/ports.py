"""The ports of the packet path: one slot for each vNIC that has its device.

The order of writes is the one that `ach_layout.h` asks for: a packet never finds a slot that is
half written, nor one that has changed hands without its generation saying so.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from achelous_vswitch import lease
from achelous_vswitch.classifier import ADOPTED
from achelous_vswitch.dataplane import Array, Dataplane, Table, vni_ip
from achelous_vswitch.plan import BoundPort, DesiredPort, Link, PortConfig
from achelous_vswitch.rules import NO_RULES, RuleSets
from achelous_vswitch.slots import SlotPool

PORT_PEER: Final = 1
"""C's ACH_PORT_PEER."""

_GENERATIONS: Final = 1 << 32
_NO_ADDRESS: Final = bytes(16)


class NoFreeSlot(OSError):
    """Every slot of the ports is taken, or was until a moment ago."""


class PortTable:
    """The ports that run, by device. Made from what the packet path holds already."""

    def __init__(self, dataplane: Dataplane, rules: RuleSets, links: Iterable[Link]) -> None:
        """Adopt what is there; nothing that a packet would notice is written."""
        self._dataplane = dataplane
        self._rules = rules
        self._vni_ports: Counter[int] = Counter()
        free = np.flatnonzero(dataplane.ports["generation"] % 2 == 0)
        self._slots = SlotPool(free[free != 0].tolist())
        self._retired: Array = _words(np.zeros_like(dataplane.counters.per_cpu_lookup(0)))[0]
        self.bound: dict[str, BoundPort] = {}
        self._adopt({link.ifindex: link for link in links})

    def bind(self, want: DesiredPort, link: Link, now: float) -> None:
        """Run a vNIC on its device. Raises OSError, and leaves nothing, if it does not fit."""
        slot = self._slots.take(now)
        if slot is None:
            raise NoFreeSlot("no slot is free: more vNICs come and go here than the host runs")
        port = BoundPort(slot, link, want.config)
        try:
            self._clear_counters(slot)
            self._write_config(slot, want.config, now)
        except OSError:
            self._slots.give_back(slot, now)
            raise
        entry = self._dataplane.ports[slot]
        entry["ifindex"] = link.ifindex
        entry["flags"] = PORT_PEER if link.peer else 0
        entry["generation"] = (int(entry["generation"]) + 1) % _GENERATIONS  # odd: in use
        self.bound[want.device] = port
        self._vni_ports[want.config.vni] += 1
        try:
            self._write_indexes(port)
        except OSError:
            self.unbind(want.device, now)
            raise

    def update(self, want: DesiredPort, now: float) -> None:
        """Give a port other rules, router or MTU; sessions are judged anew, none is dropped."""
        port = self.bound[want.device]
        self._write_config(port.slot, want.config, now)
        self.bound[want.device] = replace(port, config=want.config)

    def unbind(self, device: str, now: float) -> None:
        """Stop running a port. What its guest still sends is dropped as long as its device is."""
        port = self.bound.pop(device)
        dataplane, config = self._dataplane, port.config
        for endpoint in self._endpoints(config):
            _delete_if(dataplane.endpoints, endpoint, port.slot)
        _delete_if(dataplane.port_by_ifindex, np.uint32(port.link.ifindex), port.slot)
        entry = dataplane.ports[port.slot]
        entry["generation"] = (int(entry["generation"]) + 1) % _GENERATIONS
        entry["acl_gen"] = _following(int(entry["acl_gen"]))
        self._vni_ports[config.vni] -= 1
        if self._vni_ports[config.vni]:
            dataplane.vnis.update(config.vni, self._vni_ports[config.vni])
        else:
            del self._vni_ports[config.vni]
            dataplane.vnis.delete(config.vni)
        self._rules.release(int(entry["acl_in"]), now)
        self._rules.release(int(entry["acl_out"]), now)
        self._slots.give_back(port.slot, now)

    def repair(self) -> None:
        """Make the indexes say what the ports say: an agent may have died between two writes."""
        dataplane = self._dataplane
        for port in self.bound.values():
            self._write_indexes(port)
        _keep_only(
            dataplane.endpoints,
            {
                endpoint.tobytes()
                for port in self.bound.values()
                for endpoint in self._endpoints(port.config)
            },
        )
        _keep_only(
            dataplane.port_by_ifindex,
            {np.uint32(port.link.ifindex).tobytes() for port in self.bound.values()},
        )
        _keep_only(dataplane.vnis, {np.uint32(vni).tobytes() for vni in self._vni_ports})

    def totals(self) -> Array:
        """Counters of each slot (slots,), summed over the CPUs."""
        counters = self._dataplane.counters.per_cpu_all()
        totals: Array = _words(counters).sum(axis=1).view(counters.dtype).reshape(-1)
        return totals

    def host_totals(self) -> np.void:
        """One record of counters: all slots, and what vNICs that were here once have counted."""
        counters = self._dataplane.counters.per_cpu_all()
        words = _words(counters).sum(axis=(0, 1)) + self._retired
        total: np.void = words.view(counters.dtype)[0]
        return total

    def _adopt(self, links: Mapping[int, Link]) -> None:
        for slot in np.flatnonzero(self._dataplane.ports["generation"] % 2).tolist():
            entry = self._dataplane.ports[slot]
            for side in ("acl_in", "acl_out"):
                if int(entry[side]) not in self._rules:
                    entry[side] = NO_RULES  # it allowed nothing already
                self._rules.hold_again(int(entry[side]))
            ifindex = int(entry["ifindex"])
            link = links.get(ifindex)
            if link is None or link.name in self.bound:
                link = Link(ifindex, f"no device, slot {slot}", 0, False)
            link = replace(link, peer=bool(entry["flags"] & PORT_PEER))
            config = replace(_config(entry), lease=lease.read(self._dataplane.leases[slot]))
            self.bound[link.name] = BoundPort(slot, link, config)
            self._vni_ports[config.vni] += 1

    def _write_config(self, slot: int, config: PortConfig, now: float) -> None:
        entry = self._dataplane.ports[slot]
        running = int(entry["generation"]) % 2
        before = (int(entry["acl_in"]), int(entry["acl_out"])) if running else ()
        rules_in = self._rules.hold(config.rules_in)
        try:
            rules_out = self._rules.hold(config.rules_out)
        except OSError:
            self._rules.release(rules_in, now)
            raise
        entry["vni"] = config.vni
        entry["ip"] = np.frombuffer(config.ip, np.uint8)
        entry["ip6"] = np.frombuffer(config.ip6 or _NO_ADDRESS, np.uint8)
        entry["router6"] = np.frombuffer(config.router6 or _NO_ADDRESS, np.uint8)
        entry["prefix_len6"] = config.prefix_len6
        lease.write(self._dataplane.leases[slot], config.lease)
        entry["mac"] = np.frombuffer(config.mac, np.uint8)
        entry["router"] = np.frombuffer(config.router, np.uint8)
        entry["prefix_len"] = config.prefix_len
        entry["mtu"] = config.mtu
        entry["identity"] = config.identity
        entry["acl_in"], entry["acl_out"] = rules_in, rules_out
        if before != (rules_in, rules_out):
            entry["acl_gen"] = _following(int(entry["acl_gen"]))
        for set_id in before:
            self._rules.release(set_id, now)

    def _write_indexes(self, port: BoundPort) -> None:
        vni = port.config.vni
        self._dataplane.vnis.update(vni, self._vni_ports[vni])
        self._dataplane.port_by_ifindex.update(port.link.ifindex, port.slot)
        for endpoint in self._endpoints(port.config):
            self._dataplane.endpoints.update(endpoint, port.slot)

    def _endpoints(self, config: PortConfig) -> tuple[Array, ...]:
        """The keys of its addresses."""
        dtype = self._dataplane.endpoints.key_dtype
        return tuple(vni_ip(dtype, config.vni, ip) for ip in config.addresses)

    def _clear_counters(self, slot: int) -> None:
        counters = self._dataplane.counters.per_cpu_lookup(slot)
        self._retired += _words(counters).sum(axis=0)
        self._dataplane.counters.per_cpu_update(slot, np.zeros_like(counters))


def _following(acl_gen: int) -> int:
    """The next rule generation; never 0, which in a session means: not on this host."""
    return acl_gen % (_GENERATIONS - 1) + 1


def _config(entry: Any) -> PortConfig:
    """What a slot runs; of its rules only their digests are there to be compared with."""
    return PortConfig(
        int(entry["vni"]),
        entry["ip"].tobytes(),
        entry["mac"].tobytes(),
        entry["router"].tobytes(),
        int(entry["prefix_len"]),
        int(entry["mtu"]),
        ADOPTED,
        ADOPTED,
        int(entry["identity"]),
        _address6(entry["ip6"]),
        _address6(entry["router6"]),
        int(entry["prefix_len6"]),
    )


def _address6(stored: Array) -> bytes:
    """An IPv6 address; none where all bits are 0."""
    address = stored.tobytes()
    return b"" if address == _NO_ADDRESS else address


def _words(counters: Array) -> Array:
    """Counter records (...,) as their 64-bit words (..., n)."""
    contiguous = np.ascontiguousarray(counters)
    return contiguous.view(np.uint64).reshape(*counters.shape, -1)


def _delete_if(table: Table, key: np.generic | Array, slot: int) -> None:
    """Remove an entry, unless another slot owns it by now."""
    if table.lookup(key) == slot:
        table.delete(key)


def _keep_only(table: Table, keys: set[bytes]) -> None:
    found, _ = table.lookup_batch_all()
    strays = [index for index, key in enumerate(found) if key.tobytes() not in keys]
    if strays:
        table.delete_batch(found[strays])
