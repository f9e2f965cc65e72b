"""The parts of a running agent, as those who only look at it see them."""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from achelous_vswitch.applier import Applier
from achelous_vswitch.classifier import Rules
from achelous_vswitch.dataplane import Array, Dataplane
from achelous_vswitch.fc import ForwardingCache
from achelous_vswitch.gateways import Gateways
from achelous_vswitch.plan import BoundPort
from achelous_vswitch.preprogrammed import Preprogrammed
from achelous_vswitch.sessions import SessionCollector


@dataclass(frozen=True, slots=True)
class AgentState:
    """Read by `show`, by the gauges and by the readiness checks."""

    host_id: UUID
    dataplane: Dataplane
    applier: Applier
    cache: ForwardingCache
    gateways: Gateways
    sessions: SessionCollector
    preprogrammed: Preprogrammed

    def drops_by_reason(self, drops: Array) -> dict[str, int]:
        """Drop counts (ACH_DROP_SLOTS,) by the names of their reasons; those of 0 left out."""
        names = self.dataplane.drop_reasons
        return {
            names[number] if number < len(names) else f"reason {number}": count
            for number, count in enumerate(drops.tolist())
            if count
        }

    def vnics(self) -> Iterator[tuple[BoundPort, UUID]]:
        """The ports that run now, each with its vNIC."""
        applier = self.applier
        if applier.desired is None or applier.ports is None:
            return
        wanted = applier.desired.ports
        for device, port in applier.ports.bound.items():
            if device in wanted:
                yield port, wanted[device].vnic_id

    def rule_sets(self) -> dict[int, Rules]:
        """The rule sets that ports run now, by id."""
        ports, found = self.applier.ports, {}
        for port in ports.bound.values() if ports else ():
            entry = self.dataplane.ports[port.slot]
            found[int(entry["acl_in"])] = port.config.rules_in
            found[int(entry["acl_out"])] = port.config.rules_out
        return found

    def host_drops(self) -> dict[str, int]:
        """Drops of the whole host by reason, those of vNICs that were here once included."""
        ports = self.applier.ports
        if ports is None:
            return {}
        return self.drops_by_reason(ports.host_totals()["drops"])
