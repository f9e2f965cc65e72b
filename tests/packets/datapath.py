"""The vSwitch's programs with their maps filled in by hand, and what they do to one frame."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from typing import Any, Final

import numpy as np
from packets.frames import Guest, guest
from packets.outcome import LOOPBACK, Counters, Outcome, read_counters, run
from packets.tables import clear, mac_bytes, mapped, record, unmapped

from achelous_shared.bpf import BpfMap, BpfObject, RingBuffer, dtype_of
from achelous_vswitch import classifier
from achelous_vswitch.rules import record as ruleset_record

VNI: Final = 0x64C8
OWN_VTEP: Final = "198.18.0.1"
PEER_VTEP: Final = "198.18.0.2"
GATEWAY_VTEP: Final = "198.18.0.3"
UNDERLAY: Final = 99
SECOND: Final = 10**9
SMALL: Final = {
    "ports": 16,
    "counters": 16,
    "icmp_budgets": 16,
    "leases": 16,
    "port_by_ifindex": 16,
    "endpoints": 16,
    "vnis": 16,
    "acl_sets": 64,
    "acl_words": 1 << 18,
    "fc": 16,
    "fc_index": 16,
    "sessions": 64,
    "session_ring": 64,
    "session_counts": 16,
    "vteps": 16,
    "learn": 1 << 16,
    "samples": 1 << 16,
    "relayed": 256,
    "fragments": 256,
}
SESSION_TIMEOUTS: Final = {
    "SYN_SENT": 60,
    "SYN_RECEIVED": 50,
    "ESTABLISHED": 3600,
    "CLOSING": 40,
    "CLOSED": 20,
    "UDP_SENT": 60,
    "UDP_REPLIED": 90,
    "ICMP": 60,
    "OTHER": 70,
}
"""Seconds by C's enum ach_session_state, in its order."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `ports` of ICMP: type << 8 | code. `identities`: of the group that it names."""

    remote: str = "0.0.0.0/0"
    proto: int = 0
    ports: tuple[int, int] = (0, 65535)
    allow: bool = True
    priority: int = 1000
    identities: tuple[int, ...] | None = None

    def compiled(self) -> classifier.Rule:
        """As the agent has it."""
        network = ip_network(self.remote)
        length = network.prefixlen + (96 if network.version == 4 else 0)
        return classifier.Rule(
            self.priority, self.allow, self.proto, *self.ports,
            mapped(str(network.network_address)), length,
            identities=self.identities,
        )  # fmt: skip


ANYTHING: Final = (Rule(), Rule("::/0"))


@dataclass(frozen=True, slots=True)
class Port:
    """A vNIC on this host."""

    slot: int
    guest: Guest
    vni: int


@dataclass(slots=True)
class Datapath:
    """A loaded vSwitch, its tables emptied. Ports get slots 1, 2, ... in the order of their making.

    It is a host at OWN_VTEP in a fleet with one other host and one gateway, as `vtep` and
    `configure` may change.
    """

    loaded: BpfObject
    ports: list[Port] = field(default_factory=list)
    rule_sets: int = 0
    rule_words: int = 0
    routes: int = 0

    def __post_init__(self) -> None:
        clear(self.loaded)
        self.configure(
            vtep=int(IPv4Address(OWN_VTEP)),
            underlay_ifindex=UNDERLAY,
            learn_interval_ns=SECOND,
            learn_per_window=100,
            samples_per_window=100,
            learn_packets=1,
            learn_pause_ns=SECOND,
            underlay_mtu=1600,
            session_timeout_ns=[seconds * SECOND for seconds in SESSION_TIMEOUTS.values()],
            session_ring=self.loaded.maps["session_ring"].max_entries,
        )
        self.vtep(PEER_VTEP, 1)
        self.vtep(GATEWAY_VTEP, 2)
        self.gateway(GATEWAY_VTEP)

    # ---- tables ------------------------------------------------------------------------------

    def configure(self, **fields: Any) -> None:
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
        ip6: str | None = None,
        subnet6: str = "fd00::/64",
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
            | (_ipv6(ip6, IPv6Network(subnet6)) if ip6 else {})
            | fields,
        )
        for address in (ip, ip6):
            if address is not None:
                self.table("endpoints").update(self.address(address, vni), made.slot)
        self.table("vnis").update(vni, 1)
        self.ports.append(made)
        return made

    def rule_set(self, rules: Iterable[Rule]) -> int:
        """The id of a new rule set."""
        return self.rule_set_of(classifier.Rules.of((rule.compiled(), None) for rule in rules))

    def rule_set_of(self, rules: classifier.Rules) -> int:
        """The id of a new rule set of rules as the agent has them; 0 for none."""
        if not rules:
            return 0
        compiled = classifier.compile_rules(rules)
        acl, at = self.table("acl_sets"), self.rule_words
        self.table("acl_words").mmap()[at : at + len(compiled.words)] = compiled.words
        self.rule_words += len(compiled.words)
        self.rule_sets += 1
        acl.update(self.rule_sets, ruleset_record(acl.value_dtype, at, compiled))
        return self.rule_sets

    def allow(
        self, port: Port, *, into: Iterable[Rule] | None = None, out: Iterable[Rule] | None = None
    ) -> None:
        """Give a port new rules, as the agent does: the generation last."""
        self.write_rules(port, into=into, out=out)
        self.table("ports").mmap()[port.slot]["acl_gen"] += 1

    def write_rules(
        self, port: Port, *, into: Iterable[Rule] | None = None, out: Iterable[Rule] | None = None
    ) -> None:
        """New rules that running sessions do not notice: only new ones ask them."""
        view = self.table("ports").mmap()[port.slot]
        if into is not None:
            view["acl_in"] = self.rule_set(into)
        if out is not None:
            view["acl_out"] = self.rule_set(out)

    def start_over(self) -> None:
        """No vNICs, no rules, no sessions; for tests that try many cases."""
        self.ports.clear()
        self.rule_sets = self.rule_words = 0
        self.forget_sessions()

    def forget_sessions(self) -> None:
        """Every packet is a flow's first again."""
        sessions = self.table("sessions")
        sessions.delete_batch(sessions.lookup_batch_all()[0])

    def release(self, port: Port) -> None:
        """Unbind a vNIC."""
        self.table("endpoints").delete(self.address(port.guest.ip, port.vni))
        self.table("ports").mmap()[port.slot]["generation"] += 1

    def route(
        self,
        ip: str,
        vtep: str = PEER_VTEP,
        *,
        vni: int = VNI,
        revision: int = 1,
        mac: str | None = None,
        identity: int = 0,
    ) -> int:
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
            mac=mac_bytes(mac or guest(ip).mac),
            mtu=1500,
            revision=revision,
            identity=identity,
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
        return run(self.loaded, "from_guest", frame, gso_size=gso_size)

    def receive(self, frame: bytes) -> Outcome:
        """The frame arrives from the underlay."""
        return run(self.loaded, "from_underlay", frame)

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

    def age_sessions(self, seconds: float, *, created: bool = False) -> None:
        """Every session was last seen, and perhaps `created`, that much earlier; below 0: later."""
        keys, values = self.table("sessions").lookup_batch_all()
        for name in ("last_seen_ns", *(["created_ns"] if created else [])):
            values[name] = values[name].astype(np.int64) - int(seconds * SECOND)
        self.table("sessions").update_batch(keys, values)

    def learned(self) -> list[tuple[int, str, int]]:
        """(vni, address, slot of the sender) of the learn events since the last call."""
        ring = RingBuffer(self.table("learn"), dtype_of(self.loaded, "ach_learn_event"))
        return [
            (int(event["vni"]), str(unmapped(event["ip"].tobytes())), int(event["port"]))
            for event in ring.read(10_000)
        ]

    def samples(self) -> np.ndarray[Any, Any]:
        """Dropped packets sampled since the last call."""
        ring = RingBuffer(self.table("samples"), dtype_of(self.loaded, "ach_drop_sample"))
        return ring.read(10_000)

    def counters(self) -> Counters:
        """All counters by slot, summed over the CPUs; drops by the name of their reason."""
        return read_counters(self.loaded)


def _ipv6(ip: str, network: IPv6Network) -> dict[str, Any]:
    """Fields of ach_port."""
    router = str(network[1])
    return {"ip6": mapped(ip), "router6": mapped(router), "prefix_len6": network.prefixlen}
