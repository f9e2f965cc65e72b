"""The vSwitch's programs with their maps filled in by hand, and what they do to one frame."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final, cast

import numpy as np
from packets.frames import Guest, guest

from achelous_shared.bpf import SK_BUFF, BpfMap, BpfObject, MapType, RingBuffer, dtype_of, enum_of

VNI: Final = 0x64C8
OWN_VTEP: Final = "198.18.0.1"
PEER_VTEP: Final = "198.18.0.2"
GATEWAY_VTEP: Final = "198.18.0.3"
UNDERLAY: Final = 99
LOOPBACK: Final = 1  # the only device that a test run can count on: every guest's frames enter here
SECOND: Final = 10**9
Counters = dict[int, dict[str, int]]
"""Slot -> name -> count; drops by the name of their reason, in capitals."""

SMALL: Final = {
    "ports": 16,
    "counters": 16,
    "port_by_ifindex": 16,
    "endpoints": 16,
    "vnis": 16,
    "acl": 64,
    "fc": 16,
    "fc_index": 16,
    "sessions": 64,
    "vteps": 16,
    "learn": 1 << 16,
    "learn_seen": 256,
    "fragments": 256,
}


class Verdict(IntEnum):
    """What a program tells TCX."""

    NEXT = -1
    DROP = 2
    REDIRECT = 7


@dataclass(frozen=True, slots=True)
class Rule:
    """One allow rule."""

    remote: str = "0.0.0.0/0"
    proto: int = 0
    ports: tuple[int, int] = (0, 65535)


ANYTHING: Final = (Rule(),)


@dataclass(frozen=True, slots=True)
class Port:
    """A vNIC on this host."""

    slot: int
    guest: Guest
    vni: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a frame. `counted`: what each slot's counters gained, drops by reason."""

    verdict: Verdict
    frame: bytes
    counted: Counters

    @property
    def dropped(self) -> str | None:
        """`<slot>:<reason>` of the one drop that was counted."""
        drops = [
            f"{slot}:{name}"
            for slot, gained in self.counted.items()
            for name in gained
            if name.isupper()
        ]
        assert len(drops) <= 1
        return drops[0] if drops else None


def mapped(ip: str) -> bytes:
    """The 16 bytes of an IPv4 address in keys."""
    return bytes(10) + b"\xff\xff" + IPv4Address(ip).packed


def record(dtype: np.dtype[Any], **fields: Any) -> np.void:
    """A record of that dtype, zero where not named. Bytes fill arrays."""
    made = np.zeros((), dtype)
    for name, value in fields.items():
        made[name] = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
    return cast(np.void, made[()])


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


@dataclass(slots=True)
class Datapath:
    """A loaded vSwitch, its tables emptied. Ports get slots 1, 2, ... in the order of their making.

    It is a host at OWN_VTEP in a fleet with one other host and one gateway, as `vtep` and
    `configure` may change.
    """

    loaded: BpfObject
    ports: list[Port] = field(default_factory=list)
    rule_sets: int = 0
    routes: int = 0

    def __post_init__(self) -> None:
        clear(self.loaded)
        self.configure(
            vtep=int(IPv4Address(OWN_VTEP)),
            underlay_ifindex=UNDERLAY,
            learn_interval_ns=SECOND,
            learn_per_window=100,
            underlay_mtu=1600,
            tcp_established_ns=3600 * SECOND,
            tcp_opening_ns=60 * SECOND,
            udp_ns=60 * SECOND,
            icmp_ns=60 * SECOND,
        )
        self.vtep(PEER_VTEP, 1)
        self.vtep(GATEWAY_VTEP, 2)
        self.gateway(GATEWAY_VTEP)

    # ---- tables ------------------------------------------------------------------------------

    def configure(self, **fields: int) -> None:
        """Change fields of config[0]."""
        view = self.table("config").mmap()
        for name, value in fields.items():
            view[0][name] = value

    def port(
        self,
        ip: str,
        *,
        vni: int = VNI,
        subnet: str = "10.0.0.0/24",
        allow_in: Iterable[Rule] = ANYTHING,
        allow_out: Iterable[Rule] = ANYTHING,
        **fields: Any,
    ) -> Port:
        """A vNIC bound to this host, with all its table entries. `fields`: of its ach_port."""
        made = Port(len(self.ports) + 1, guest(ip), vni)
        network = IPv4Network(subnet)
        self.table("ports").mmap()[made.slot] = record(
            self.table("ports").value_dtype,
            **{
                "generation": 1,
                "ifindex": LOOPBACK,
                "vni": vni,
                "acl_gen": 1,
                "acl_in": self.rule_set(allow_in),
                "acl_out": self.rule_set(allow_out),
                "ip": mapped(ip),
                "router": mapped(str(network[1] if network.num_addresses > 2 else "169.254.1.1")),
                "mac": mac_bytes(made.guest.mac),
                "prefix_len": 96 + network.prefixlen,
                "flags": 1,
                "mtu": 1500,
            }
            | fields,
        )
        self.table("endpoints").update(self.address(ip, vni), made.slot)
        self.table("vnis").update(vni, 1)
        self.ports.append(made)
        return made

    def rule_set(self, rules: Iterable[Rule]) -> int:
        """The id of a new rule set."""
        acl = self.table("acl")
        rules = tuple(rules)
        value = np.zeros((), acl.value_dtype)
        value["count"] = len(rules)
        for entry, rule in zip(value["rules"], rules, strict=False):
            network = IPv4Network(rule.remote)
            entry["remote"] = np.frombuffer(mapped(str(network.network_address)), np.uint8)
            entry["remote_len"] = 96 + network.prefixlen
            entry["proto"] = rule.proto
            entry["port_min"], entry["port_max"] = rule.ports
        self.rule_sets += 1
        acl.update(self.rule_sets, value)
        return self.rule_sets

    def allow(
        self, port: Port, *, into: Iterable[Rule] | None = None, out: Iterable[Rule] | None = None
    ) -> None:
        """Give a port new rules, as the agent does: the generation last."""
        view = self.table("ports").mmap()[port.slot]
        if into is not None:
            view["acl_in"] = self.rule_set(into)
        if out is not None:
            view["acl_out"] = self.rule_set(out)
        view["acl_gen"] += 1

    def release(self, port: Port) -> None:
        """Unbind a vNIC."""
        self.table("endpoints").delete(self.address(port.guest.ip, port.vni))
        self.table("ports").mmap()[port.slot]["generation"] += 1

    def route(self, ip: str, vtep: str = PEER_VTEP, *, vni: int = VNI, revision: int = 1) -> int:
        """Learn or change a route as the agent does; returns the FC slot."""
        index, slots = self.table("fc_index"), self.table("fc").mmap()
        old = index.lookup(self.address(ip, vni))
        self.routes += 1
        slots[self.routes] = record(
            self.table("fc").value_dtype,
            generation=1,
            vni=vni,
            ip=mapped(ip),
            vtep=int(IPv4Address(vtep)),
            mac=mac_bytes(guest(ip).mac),
            mtu=1500,
            revision=revision,
        )
        index.update(self.address(ip, vni), self.routes)
        if old is not None:
            slots[int(old)]["generation"] += 1
        return self.routes

    def forget(self, ip: str, *, vni: int = VNI) -> None:
        """Drop a route from the FC."""
        slot = self.table("fc_index").lookup(self.address(ip, vni))
        self.table("fc_index").delete(self.address(ip, vni))
        assert slot is not None
        self.table("fc").mmap()[int(slot)]["generation"] += 1

    def gateway(self, vtep: str | None) -> None:
        """All rendezvous slots go to this gateway; None: to nobody."""
        self.table("gateways").mmap()[:] = int(IPv4Address(vtep)) if vtep else 0

    def vtep(self, ip: str, kind: int) -> None:
        """A member of the fleet: 1 host, 2 gateway."""
        self.table("vteps").update(int(IPv4Address(ip)), kind)

    # ---- packets -----------------------------------------------------------------------------

    def send(self, port: Port, frame: bytes, *, gso_size: int = 0) -> Outcome:
        """The frame leaves the guest of `port`."""
        self.table("port_by_ifindex").update(LOOPBACK, port.slot)
        return self.run("from_guest", frame, gso_size=gso_size)

    def receive(self, frame: bytes) -> Outcome:
        """The frame arrives from the underlay."""
        return self.run("from_underlay", frame)

    def run(self, program: str, frame: bytes, *, gso_size: int = 0) -> Outcome:
        """One run of a program and what it counted."""
        before = self.counters()
        context = skb_context(gso_size, len(frame))
        result = self.loaded.programs[program].test_run(frame, ctx=context, ifindex=LOOPBACK)
        return Outcome(Verdict(result.retval), result.data, gained(before, self.counters()))

    # ---- what can be seen --------------------------------------------------------------------

    def table(self, name: str) -> BpfMap:
        return self.loaded.maps[name]

    def address(self, ip: str, vni: int = VNI) -> np.void:
        """The key ach_vni_ip."""
        return record(self.table("endpoints").key_dtype, vni=vni, ip=mapped(ip))

    @staticmethod
    def now() -> int:
        """The clock of the packet path, in ns."""
        return time.monotonic_ns()

    def sessions(self) -> np.ndarray[Any, Any]:
        """Values of all sessions."""
        return self.table("sessions").lookup_batch_all()[1]

    def age_sessions(self, seconds: float) -> None:
        """Every session was last seen that much earlier; below 0: later."""
        keys, values = self.table("sessions").lookup_batch_all()
        values["last_seen_ns"] = values["last_seen_ns"].astype(np.int64) - int(seconds * SECOND)
        self.table("sessions").update_batch(keys, values)

    def learned(self) -> list[tuple[int, str, int]]:
        """(vni, address, slot of the sender) of the learn events since the last call."""
        ring = RingBuffer(self.table("learn"), dtype_of(self.loaded, "ach_learn_event"))
        return [
            (int(event["vni"]), str(IPv4Address(event["ip"][12:].tobytes())), int(event["port"]))
            for event in ring.read(10_000)
        ]

    def counters(self) -> Counters:
        """All counters by slot, summed over the CPUs; drops by the name of their reason."""
        return read_counters(self.loaded)


def clear(loaded: BpfObject) -> None:
    """Empty every table and set all counters to 0."""
    for name, table in loaded.maps.items():
        match table.type:
            case MapType.ARRAY if name[0] != ".":
                table.mmap()[:] = np.zeros(1, table.value_dtype)
            case MapType.HASH | MapType.LRU_HASH:
                table.delete_batch(table.lookup_batch_all()[0])
            case MapType.PERCPU_ARRAY:
                keys, values = table.lookup_batch_all()
                table.update_batch(keys, np.zeros_like(values))
            case MapType.RINGBUF:
                RingBuffer(table, dtype_of(loaded, "ach_learn_event")).read(1 << 16)


def read_counters(loaded: BpfObject) -> Counters:
    """Counters of either object: slot -> name -> sum over the CPUs."""
    values = loaded.maps["counters"].per_cpu_all()
    reasons = enum_of(loaded, "ach_drop")
    names = [name for name in values.dtype.names or () if name != "drops" and "window" not in name]
    plain = {name: values[name].sum(axis=1) for name in names}
    drops = values["drops"].sum(axis=1)
    return {
        slot: {name: int(total[slot]) for name, total in plain.items()}
        | {
            name.removeprefix("ACH_DROP_"): int(drops[slot, number])
            for name, number in reasons.items()
            if name != "ACH_DROP_COUNT"
        }
        for slot in range(len(values))
    }


def gained(before: Counters, after: Counters) -> Counters:
    """What was counted in between, without the zeros."""
    differences = {
        slot: {name: count - before[slot][name] for name, count in counts.items()}
        for slot, counts in after.items()
    }
    return {
        slot: {name: count for name, count in counts.items() if count}
        for slot, counts in differences.items()
        if any(counts.values())
    }


def skb_context(gso_size: int, length: int) -> bytes | None:
    """The context of a GSO frame, or none."""
    if not gso_size:
        return None
    skb = np.zeros((), SK_BUFF)
    skb["gso_size"] = gso_size
    skb["gso_segs"] = -(-length // gso_size)
    return skb.tobytes()
