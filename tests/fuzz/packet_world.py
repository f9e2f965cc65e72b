"""A host and a gateway with all their tables filled in, as the packet fuzzer meets them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from fuzz.packet_input import Entry, Step
from packets import gateway_path
from packets.datapath import PEER_VTEP, SMALL, VNI, Datapath, Port, Rule
from packets.frames import guest
from packets.gateway_path import GatewayPath
from packets.leases import desired, give
from packets.outcome import LOOPBACK, skb_context

from achelous_shared.bpf import BpfObject, TestResult, enum_of
from achelous_shared.routes import ip_bytes
from achelous_vswitch import lease

OTHER_VNI: Final = VNI + 1
ME, NEIGHBOUR, CLOSED, LEASED = "10.0.0.5", "10.0.0.6", "10.0.1.7", "10.0.0.5"
ADDRESSES6: Final = ("fd00::5", "fd00::6", "fd00:0:0:1::7", "fd00:1::5")
"""Of the ports, in the order of their slots."""
PEER: Final = "10.0.0.9"
_PROGRAMS: Final = {Entry.UNDERLAY: "from_underlay", Entry.GATEWAY: "relay"}
_LONGEST: Final = 3000
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Counted:
    """What one frame added to the counters: slot -> name -> count, and slot -> reason -> count."""

    plain: dict[int, dict[str, int]]
    drops: list[tuple[int, int]]


@dataclass(slots=True)
class PacketWorld:
    """Slot 1 is open, as 2 is. Slot 3, of another subnet and with a smaller MTU, takes packets from
    one identity only. Slot 4 is of another VPC, with a lease. A peer has a route; what else there
    is goes by the gateway."""

    vswitch: BpfObject
    relay: BpfObject
    ports: dict[int, Port] = field(default_factory=dict)
    reasons: int = 0
    _counters: list["_Counters"] = field(default_factory=list)
    _budgets: tuple[Array, Array] = field(default_factory=lambda: (np.zeros(0), np.zeros(0)))

    @classmethod
    def open(cls, objects: Path) -> Self:
        """Loads the programs of this folder."""
        vswitch = BpfObject.open(objects / "vswitch.bpf.o", pin_dir=None, max_entries=SMALL)
        relay = BpfObject.open(
            objects / "gateway.bpf.o", pin_dir=None, max_entries=gateway_path.SMALL
        )
        made = cls(vswitch, relay)
        made._fill(Datapath(vswitch), GatewayPath(relay))
        return made

    def _fill(self, datapath: Datapath, gateway: GatewayPath) -> None:
        made = [
            datapath.port(ME, ip6="fd00::5", identity=7),
            datapath.port(NEIGHBOUR, ip6="fd00::6", flags=0),
            datapath.port(
                CLOSED, ip6="fd00:0:0:1::7", subnet="10.0.1.0/24", subnet6="fd00:0:0:1::/64",
                allow_in=[Rule(identities=(9,))], mtu=1400,
            ),
            datapath.port(LEASED, vni=OTHER_VNI, ip6="fd00:1::5", subnet6="fd00:1::/64"),
        ]  # fmt: skip
        self.ports = {port.slot: port for port in made}
        vnic = desired(made[3].guest, vni=OTHER_VNI, ip6=ip_bytes("fd00:1::5"))
        give(datapath, made[3], lease.lease_of(vnic))
        for vni in (VNI, OTHER_VNI):
            datapath.route(PEER, vni=vni)
            datapath.route("fd00::9", vni=vni, mac=guest(PEER).mac)
            for ip in (PEER, "fd00::9", ME):
                gateway.route(ip, PEER_VTEP, vni=vni)
        datapath.configure(learn_interval_ns=0)
        gateway.configure(push_interval_ns=10**9, push_per_window=100)
        gateway.heartbeat(seconds_ago=1)
        self._budgets = self.vswitch.maps["icmp_budgets"].lookup_batch_all()
        self._counters = [_Counters(self.vswitch), _Counters(self.relay)]
        self.reasons = enum_of(self.vswitch, "ach_drop")["ACH_DROP_COUNT"]

    def forget(self) -> None:
        """Every frame is the first one again, and no budget is used up."""
        for name in ("sessions", "fragments"):
            table = self.vswitch.maps[name]
            if len(keys := table.lookup_batch_all()[0]):
                table.delete_batch(keys)
        self.vswitch.maps["session_counts"].mmap()[:] = 0
        self.vswitch.maps["icmp_budgets"].update_batch(*self._budgets)

    def run(self, step: Step) -> tuple[TestResult, Counted] | None:
        """None: a test run does not take such a frame, shorter than its IP header or too long."""
        if len(step.frame) > _LONGEST:
            return None
        ours = step.entry in self.ports
        loaded = self.relay if step.entry is Entry.GATEWAY else self.vswitch
        if ours:
            self.vswitch.maps["port_by_ifindex"].update(LOOPBACK, int(step.entry))
        context = skb_context(step.gso_size, len(step.frame))
        program = loaded.programs[_PROGRAMS.get(step.entry, "from_guest")]
        try:
            result = program.test_run(step.frame, ctx=context, ifindex=LOOPBACK)
        except OSError:
            if len(step.frame) < 54:
                return None
            raise
        return result, self._counters[loaded is self.relay].gained()


@dataclass(slots=True)
class _Counters:
    """The counters of an object, which nobody else runs; `gained` is since the call before."""

    loaded: BpfObject
    names: list[str] = field(default_factory=list)
    before: Array = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        dtype = self.loaded.maps["counters"].value_dtype
        self.names = [name for name in dtype.names or () if name != "drops"]
        self.before = self._read()

    def _read(self) -> Array:
        """By slot, and then the words of its counters, summed over the CPUs."""
        values = self.loaded.maps["counters"].per_cpu_all()
        words: Array = values.view(np.uint64).reshape(*values.shape, -1).sum(axis=1)
        return words

    def gained(self) -> Counted:
        after = self._read()
        more = after - self.before
        self.before = after
        counted = Counted({}, [])
        for slot, word in zip(*(axis.tolist() for axis in more.nonzero()), strict=True):
            count = int(more[slot, word])
            if word >= len(self.names):
                counted.drops.extend([(slot, word - len(self.names))] * count)
            elif "window" not in self.names[word] and self.names[word] != "samples_lost":
                counted.plain.setdefault(slot, {})[self.names[word]] = count
        return counted
