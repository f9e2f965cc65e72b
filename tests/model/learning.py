"""Which relayed destinations the agent is told of: those that are worth a route."""

from dataclasses import dataclass, field

from model.wire import Address
from model.world import Settings


@dataclass(slots=True)
class Relayed:
    """What was relayed to a destination since its last pause. Times in seconds."""

    last: float
    told: float | None = None
    packets: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Learning:
    """Events are (VNI, address, slot of the sender)."""

    settings: Settings
    relayed: dict[tuple[int, Address], Relayed] = field(default_factory=dict)
    events: list[tuple[int, Address, int]] = field(default_factory=list)

    def missed(self, vni: int, to: Address, sender: int, size: int, now: float) -> bool:
        """The FC had no entry for a packet; whether the agent hears of it."""
        flow = self.relayed.setdefault((vni, to), Relayed(now))
        if now - flow.last > self.settings.learn_pause:
            flow.packets = flow.bytes = 0
        flow.last = now
        flow.packets += 1
        flow.bytes += size
        least = self.settings.learn_bytes
        enough = flow.packets >= self.settings.learn_packets or (least and flow.bytes >= least)
        just = flow.told is not None and now - flow.told < self.settings.learn_interval
        if not enough or just:
            return False
        flow.told = now
        self.events.append((vni, to, sender))
        return True
