"""One packet's place in its session: the next hop, the rules of each end, the commitment."""

from dataclasses import dataclass

from model.quoting import Quote
from model.reading import ECHO, REQUESTS, Drop, Packet, Ports
from model.rules import Question, Ruling, decide
from model.sessions import Here, Key, Session, Table, begins, key_of
from model.wire import ICMP, ICMPV6, TCP, UDP, Address
from model.world import Route, VNic, World


@dataclass(slots=True)
class Flow:
    """`ports` and ends are the packet's; of an ICMP error, those of an answer to what it quotes."""

    world: World
    table: Table
    packet: Packet
    ports: Ports
    source: Address
    key: Key
    side: int
    session: Session
    fresh: bool
    slow: bool
    now: float

    @classmethod
    def open(
        cls, world: World, table: Table, packet: Packet, quote: Quote | None, owner: VNic,
        *, arrived: bool, now: float,
    ) -> "Flow":  # fmt: skip
        """The packet's session, or the beginning of one that is charged to `owner`."""
        ports = packet.ports if quote is None else answer_to(quote.ports)
        source = packet.source if quote is None else quote.to
        key, side = key_of(packet.vni, source, packet.to, ports)
        session = table.find(key, packet.tcp_flags, now)
        fresh = session is None
        made = session or Session(side, owner.slot, arrived, now)
        return cls(world, table, packet, ports, source, key, side, made, fresh, fresh, now)

    @property
    def is_initiator(self) -> bool:
        return self.side == self.session.initiator

    def next_hop(self) -> VNic | Route | None:
        """Towards the receiver; None: a gateway's matter."""
        other, where = 1 - self.side, (self.packet.vni, self.packet.to)
        hop = self.session.hops[other]
        if isinstance(hop, Here) and hop.stands:
            return hop.vnic
        if isinstance(hop, Route) and self.world.routes.get(where) is hop:
            return hop
        self.slow = True
        vnic = self.world.local(*where)
        if vnic is not None:
            return vnic
        route = self.world.routes.get(where)
        self.session.hops[other] = route
        self.session.admitted[other] = (0, 0)
        return route

    def admit(self, side: int, vnic: VNic, identity: int | None) -> None:
        """The rules of the vNIC on that side allow the session; `identity`: of the other end.

        They are asked once, and again when they, the vNIC or the identity have changed; a session
        that they do not allow any more ends. A number that is not known now was known before.
        """
        session, outbound = self.session, side == self.session.initiator
        known, hop = session.identities[1 - side], session.hops[side]
        slot, version = session.admitted[side]
        asked = slot == vnic.slot and isinstance(hop, Here) and hop.vnic is vnic and hop.stands
        if asked and identity is None and (known or not outbound):
            identity = known
        if asked and identity in (None, known) and version == vnic.rules_version:
            return
        self.slow = True
        rules = vnic.rules_out if outbound else vnic.rules_in
        remote = self.packet.to if side == self.side else self.source
        ruling = decide(rules, Question(self.ports.protocol, self._detail(), remote, identity))
        if ruling is Ruling.UNKNOWN:
            raise Drop("IDENTITY_UNKNOWN")
        if ruling is Ruling.DENY:
            if not self.fresh:
                self.table.remove(self.key)
            raise Drop("ACL_EGRESS" if outbound else "ACL_INGRESS")
        session.admitted[side] = (vnic.slot, vnic.rules_version)
        session.identities[1 - side] = identity or 0
        session.hops[side] = Here(vnic, vnic.generation)

    def _detail(self) -> int:
        """What the session's first packet asked for, by this one."""
        ports = self.ports
        if ports.protocol in (TCP, UDP):
            return ports.dport if self.is_initiator else ports.sport
        if ports.protocol not in (ICMP, ICMPV6):
            return 0
        if self.is_initiator:
            return ports.icmp[0] << 8 | ports.icmp[1]
        return counterpart(ports) << 8

    def commit(self, size: int) -> None:
        """The session has seen the packet; an ICMP error changes nothing in it."""
        packet, settings = self.packet, self.world.settings
        if packet.is_error:
            return
        self.session.saw(self.side, packet.protocol, packet.tcp_flags, size, self.now)
        if not self.fresh:
            return
        midstream = packet.protocol == TCP and not begins(TCP, packet.tcp_flags)
        if midstream and settings.refuse_midstream:
            raise Drop("TCP_MIDSTREAM")
        owner = self.world.vnics[self.session.owner]
        limit = owner.session_limit or settings.session_limit
        self.table.enter(self.key, self.session, limit, self.now)


def counterpart(ports: Ports) -> int:
    """The ICMP type of what is answered by this one."""
    kind, echo = ports.icmp[0], ECHO[ports.protocol]
    if kind in echo:
        return echo[1 - echo.index(kind)]
    return REQUESTS.get((ports.protocol, kind), kind)


def answer_to(quoted: Ports) -> Ports:
    """What an answer to the quoted packet would have."""
    icmp = (counterpart(quoted), 0) if quoted.protocol in ECHO else (0, 0)
    return Ports(quoted.protocol, quoted.dport, quoted.sport, icmp)
