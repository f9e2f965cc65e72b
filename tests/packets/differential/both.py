"""One host twice: the programs with their maps, and the model; every table change said to both."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from model.host import Host, host
from model.rules import Rule
from model.world import Route, Settings, VNic, World, sixteen
from packets.datapath import SECOND, Datapath
from packets.differential.people import (
    GATEWAYS,
    HERE,
    OTHER_VTEP,
    OWN_VTEP,
    PEER_VTEP,
    Person,
)
from packets.differential.situations import Cached, Nic, Situation

from achelous_shared.bpf import BpfObject
from achelous_vswitch import classifier

ROOM: Final = 10
"""Sessions in the table: few, so that it is full now and then."""
TIMEOUTS: Final = {
    "SYN_SENT": 65.0,
    "SYN_RECEIVED": 55.0,
    "ESTABLISHED": 3605.0,
    "CLOSING": 45.0,
    "CLOSED": 25.0,
    "UDP_SENT": 65.0,
    "UDP_REPLIED": 95.0,
    "ICMP": 35.0,
    "OTHER": 75.0,
}
"""In seconds, as every wait is a multiple of ten: what passes meanwhile never decides."""
HELD_WITHIN: Final = 0.2
PAUSE: Final = 15.0
INTERVAL: Final = 5.0
ENDLESS: Final = 1 << 31
"""Of what is limited by time of day: never reached."""


def settings(situation: Situation) -> Settings:
    return Settings(
        OWN_VTEP, situation.underlay_mtu, situation.session_limit, situation.refuse_midstream,
        situation.learn_packets, situation.learn_bytes, PAUSE, INTERVAL, TIMEOUTS, ROOM,
    )  # fmt: skip


@dataclass(slots=True)
class Both:
    """The real one and the model of it. Time is the model's; the maps are aged instead."""

    real: Datapath
    model: Host
    now: float = 0.0
    held: float = field(default_factory=time.monotonic)
    """The real time that stands for `now`."""

    @classmethod
    def of(cls, loaded: BpfObject, situation: Situation) -> "Both":
        real = Datapath(loaded)
        both = cls(real, host(World(settings(situation))))
        both._configure(situation)
        for person, nic in zip(HERE, situation.nics, strict=True):
            both._bind(person, nic)
        for route in situation.routes:
            both.learn(route)
        return both

    def _configure(self, situation: Situation) -> None:
        self.real.configure(
            underlay_mtu=situation.underlay_mtu,
            session_limit=situation.session_limit,
            refuse_midstream=int(situation.refuse_midstream),
            learn_packets=situation.learn_packets,
            learn_bytes=situation.learn_bytes,
            learn_pause_ns=int(PAUSE * SECOND),
            learn_interval_ns=int(INTERVAL * SECOND),
            learn_per_window=ENDLESS,
            samples_per_window=0,
            session_timeout_ns=[int(seconds * SECOND) for seconds in TIMEOUTS.values()],
        )
        world = self.model.world
        world.vteps |= {PEER_VTEP, OTHER_VTEP, *GATEWAYS}
        for vtep in world.vteps:
            self.real.vtep(str(vtep), 2 if vtep in GATEWAYS else 1)
        slots = self.real.table("gateways").mmap()
        world.gateways = [
            GATEWAYS[at % 7 % 2] if situation.gateways else None for at in range(len(slots))
        ]
        slots[:] = [int(vtep) if vtep else 0 for vtep in world.gateways]

    def _bind(self, person: Person, nic: Nic) -> None:
        ip6, net6 = (person.ip6, person.net6) if nic.has_ipv6 else (None, person.net6)
        vnic = VNic(
            person.slot, person.vni, person.mac, person.ip4, person.net4, person.net4[1], ip6,
            net6, net6[1], nic.mtu, nic.identity, nic.session_limit, list(nic.rules_in),
            list(nic.rules_out),
        )  # fmt: skip
        self.model.world.vnics[person.slot] = vnic
        made = self.real.port(
            str(person.ip4), vni=person.vni, subnet=str(person.net4),
            ip6=str(ip6) if ip6 else None, subnet6=str(net6), allow_in=(), allow_out=(),
            mtu=nic.mtu, identity=nic.identity, session_limit=nic.session_limit,
        )  # fmt: skip
        assert made.slot == person.slot
        port = self._port(person)
        port["acl_in"] = self.real.rule_set_of(compiled(nic.rules_in))
        port["acl_out"] = self.real.rule_set_of(compiled(nic.rules_out))

    def _port(self, person: Person) -> Any:
        return self.real.table("ports").mmap()[person.slot]

    # ---- changes -----------------------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        """Time passes on both sides."""
        self.now += seconds
        self._age(seconds)

    def hold_time(self) -> None:
        """Real time that has passed meanwhile is taken back, once it is worth it."""
        passed = time.monotonic() - self.held
        if passed > HELD_WITHIN:
            self._age(-passed)
            self.held += passed

    def _age(self, seconds: float) -> None:
        """Everything that the maps remember happened that much earlier."""
        self.real.age_sessions(seconds, created=True)
        keys, values = self.real.table("relayed").lookup_batch_all()
        for name in ("first_ns", "last_ns", "told_ns"):
            happened = values[name] != 0
            aged = values[name].astype(np.int64) - int(seconds * SECOND)
            aged = np.minimum(aged, time.monotonic_ns())  # nothing is yet to happen
            values[name] = np.where(happened, aged, 0).astype(np.uint64)
        self.real.table("relayed").update_batch(keys, values)

    def rules(self, person: Person, rules: Iterable[Rule], *, inward: bool) -> None:
        vnic, port = self.model.world.vnics[person.slot], self._port(person)
        if inward:
            vnic.rules_in = list(rules)
        else:
            vnic.rules_out = list(rules)
        port["acl_in" if inward else "acl_out"] = self.real.rule_set_of(compiled(rules))
        vnic.rules_version += 1
        port["acl_gen"] += 1

    def identity(self, person: Person, identity: int) -> None:
        """Of a vNIC here."""
        self.model.world.vnics[person.slot].identity = identity
        self._port(person)["identity"] = identity

    def learn(self, route: Cached) -> None:
        """A route for each of the guest's addresses."""
        vtep = OTHER_VTEP if route.elsewhere else PEER_VTEP
        person = route.person
        for address in (person.ip4, person.ip6):
            slot = self.real.route(
                str(address), str(vtep), vni=person.vni, mac=person.mac.hex(":"),
                identity=route.identity,
            )  # fmt: skip
            self.real.table("fc").mmap()[slot]["mtu"] = route.mtu
            learned = Route(slot, vtep, person.mac, route.mtu, route.identity)
            self.model.world.routes[person.vni, address] = learned

    def forget(self, person: Person) -> None:
        for address in (person.ip4, person.ip6):
            if self.model.world.routes.pop((person.vni, address), None) is not None:
                self.real.forget(str(address), vni=person.vni)

    def move(self, person: Person, *, here: bool) -> None:
        """The vNIC leaves, or comes back; nothing if it is so already."""
        vnic = self.model.world.vnics[person.slot]
        if vnic.here is here:
            return
        vnic.generation += 1
        for address in (vnic.ip4, vnic.ip6):
            if address is None:
                continue
            key = self.real.address(str(address), person.vni)
            if vnic.here:
                self.real.table("endpoints").update(key, np.uint32(person.slot))
            else:
                self.real.table("endpoints").delete(key)
        self._port(person)["generation"] += 1


def compiled(rules: Iterable[Rule]) -> classifier.Rules:
    """As the agent has them."""
    return classifier.Rules.of((_compiled(rule), None) for rule in rules)


def _compiled(rule: Rule) -> classifier.Rule:
    net = rule.remote
    return classifier.Rule(
        rule.priority, rule.allow, rule.protocol, *rule.details, sixteen(net.network_address),
        net.prefixlen + (96 if net.version == 4 else 0), net.version == 6,
        None if rule.identities is None else tuple(sorted(rule.identities)),
    )  # fmt: skip
