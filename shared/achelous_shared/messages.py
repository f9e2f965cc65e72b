"""What travels on the bus: msgpack structs with a version; tables as packed arrays in bytes.

A reader ignores fields that it does not know, so fields may be added within a version; anything
else raises the version, and a reader refuses a version that it does not speak (`UnknownVersion`).
"""

from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec

from achelous_shared.names import GATEWAY_SHARDS

VERSION: Final = 1

M = TypeVar("M", bound="Message")


class BadMessage(ValueError):
    """Bytes from the bus that are no message of the expected kind; counted and left alone."""


class UnknownVersion(BadMessage):
    """A message of a version that this program does not speak."""

    def __init__(self, version: int) -> None:
        super().__init__(f"message of version {version}, this program speaks version {VERSION}")
        self.version = version


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every message: its version."""

    v: int = VERSION


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the parts of messages."""


class _Header(msgspec.Struct):
    v: int
    base: int | None = None


_encoder = msgspec.msgpack.Encoder()
_header = msgspec.msgpack.Decoder(_Header)
_decoders: dict[type[Any], msgspec.msgpack.Decoder[Any]] = {}


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    return _encoder.encode(message)


def decode(data: bytes, kind: type[M]) -> M:
    """The message in ``data``; raises `UnknownVersion` or `BadMessage`."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    try:
        message: M = decoder.decode(data)
    except msgspec.DecodeError as error:
        _must_be_known(data, kind)
        raise BadMessage(f"no {kind.__name__}: {error}") from error
    if message.v != VERSION:
        raise UnknownVersion(message.v)
    return message


def _must_be_known(data: bytes, kind: type[M]) -> None:
    """Raise `UnknownVersion` if that is why ``data`` is no such message."""
    try:
        version = _header.decode(data).v
    except msgspec.DecodeError as error:
        raise BadMessage(f"no {kind.__name__}: {error}") from error
    if version != VERSION:
        raise UnknownVersion(version)


def decode_host(data: bytes) -> "HostDocument | HostChanges":
    """What came on a host's subjects; raises as `decode` does."""
    try:
        whole = _header.decode(data).base is None
    except msgspec.DecodeError as error:
        raise BadMessage(f"no document of a host: {error}") from error
    return decode(data, HostDocument) if whole else decode(data, HostChanges)


def decode_or_default(data: bytes, kind: type[M]) -> M:
    """The message in ``data``; garbage stands for one with the defaults of all fields."""
    try:
        return decode(data, kind)
    except BadMessage:
        return kind()


# ---- routes ------------------------------------------------------------------------------------


class RouteDelta(Message, frozen=True, kw_only=True):
    """Changes that take one VPC's table from revision ``base`` to ``revision``.

    With ``base == revision`` and no entries it only announces the revision, so that a gateway that
    lost the last delta notices. ``entries``: packed `routes.ROUTE`.
    """

    vni: int
    base: int
    revision: int
    entries: bytes


class SnapshotRequest(Message, frozen=True, kw_only=True):
    """Ask for up to ``limit`` routes of a VPC with addresses above ``after`` up to ``until``.

    Both 16 bytes, or none.
    """

    vni: int
    after: bytes
    until: bytes = b""
    limit: int


class SnapshotReply(Message, frozen=True, kw_only=True):
    """A chunk of a VPC's table in order of address, as it stood at ``revision``.

    A snapshot of several chunks stands for the revision of the one that was read before all others
    were asked for: deltas after it are applied on top. ``spans``: lowest and highest address, 16
    bytes, of each family that the VPC has, IPv4 first; for who reads several ranges at once.
    ``done``: nothing follows in the range. ``vni`` unknown to the controller: revision 0, no
    entries. ``error`` is set in place of all else when the controller can not answer now.
    """

    vni: int
    revision: int
    entries: bytes
    done: bool
    spans: tuple[tuple[bytes, bytes], ...] = ()
    error: str | None = None


class RevisionsRequest(Message, frozen=True, kw_only=True):
    """Ask for the revisions of up to ``limit`` VPCs with VNIs above ``after``."""

    after: int
    limit: int


class RevisionsReply(Message, frozen=True, kw_only=True):
    """Revisions of VPCs in order of VNI; packed `routes.REVISION`."""

    revisions: bytes
    done: bool
    error: str | None = None


# ---- hosts -------------------------------------------------------------------------------------


class SecurityRule(Value, frozen=True, kw_only=True):
    """A rule. ``remote``: 16 bytes, ``remote_len`` 0..128 (an IPv4 /n is 96 + n).

    ``protocol`` 0 is any. Ports are the destination's and 0..65535 where ports do not apply; of
    ICMP and ICMPv6 they are type << 8 | code. Of the rules that match the one with the lowest
    ``priority`` decides, of equal ones a denial; what none matches is denied.
    """

    egress: bool
    protocol: int
    port_min: int
    port_max: int
    remote: bytes
    remote_len: int
    v6_only: bool = False
    """The prefix does not cover IPv4-mapped addresses."""
    remote_group: UUID | None = None
    """Only remote ends in this security group; which these are, `HostDocument.identities` says."""
    allow: bool = True
    priority: int = 1000
    """0..65535."""
    rule_id: UUID | None = None


class Port(Value, frozen=True, kw_only=True):
    """A vNIC that this host shall run."""

    vnic_id: UUID
    instance_id: UUID
    vni: int
    mac: bytes
    ip: bytes
    prefix_len: int
    """Of the subnet, 96..128."""
    router: bytes
    mtu: int
    security_groups: tuple[UUID, ...]
    revision: int
    ip6: bytes = b""
    """16 bytes; none: the vNIC has no IPv6 address."""
    prefix_len6: int = 0
    router6: bytes = b""
    dns: tuple[bytes, ...] = ()
    """Resolvers that DHCP and router advertisements name, 16 bytes each, IPv4 mapped; at most 4."""
    lease_s: int = 3600
    """Of addresses given by DHCP."""
    hostname: str = ""
    identity: int = 0
    """Number of its set of security groups within the VPC; 0: no rule names any of them."""


class HostDocument(Message, frozen=True, kw_only=True):
    """Everything that one host shall run. The whole of it, applied by difference.

    The order of ports matters only where two of them exclude each other: the first runs.
    """

    host_id: UUID
    revision: int
    ports: tuple[Port, ...]
    security_groups: dict[UUID, tuple[SecurityRule, ...]]
    identities: dict[int, dict[int, tuple[UUID, ...]]] = {}
    """Of each VNI: number of a set of security groups -> those of them that rules in this document
    name."""
    preprogrammed: tuple[int, ...] = ()
    """VNIs among those of the ports whose routes the host shall all hold, ahead of any packet."""


class HostChanges(Message, frozen=True, kw_only=True):
    """What changed in a host's document since that of revision ``base``, all of it.

    It makes that document the one of ``revision`` (`host_documents.assemble`), and means nothing
    beside another.
    """

    host_id: UUID
    base: int
    revision: int
    ports: tuple[Port, ...] = ()
    """Those that are new or not as they were."""
    gone: tuple[UUID, ...] = ()
    """vNICs that are no more; the document may not have had them."""
    security_groups: dict[UUID, tuple[SecurityRule, ...]] = {}
    """Groups that are in use since."""
    identities: dict[int, dict[int, tuple[UUID, ...]]] = {}
    """Those that are in a group that a rule of these groups names: all that are."""
    preprogrammed: tuple[int, ...] = ()
    """VNIs among those of ``ports``; others of theirs are not preprogrammed."""


class GatewayAddress(Value, frozen=True, kw_only=True):
    """A gateway of the fleet. ``vtep``: IPv4 as an integer."""

    gateway_id: UUID
    name: str
    vtep: int
    shards: tuple[int, ...] = tuple(range(GATEWAY_SHARDS))
    """It serves the VPCs of these, below `names.GATEWAY_SHARDS`."""


class FleetDocument(Message, frozen=True, kw_only=True):
    """Who may send VXLAN to whom: the VTEPs of all hosts and gateways.

    ``host_vteps``: packed big-endian u32.
    """

    revision: int
    host_vteps: bytes
    gateways: tuple[GatewayAddress, ...]


# ---- reports -----------------------------------------------------------------------------------


class GatewayApplied(Message, frozen=True, kw_only=True):
    """What a gateway serves; also its heartbeat, at least every 500 ms.

    ``revisions``: packed `routes.REVISION`, all of them if ``full``, else those that moved lately.
    ``serving``: its tables were in step with the controller when this was sent.
    """

    gateway_id: UUID
    full: bool
    serving: bool
    revisions: bytes
    at: float
    """Unix time, seconds."""


class HostApplied(Message, frozen=True, kw_only=True):
    """What a host runs; also its heartbeat, at least every second.

    ``waiting``: vNICs of that revision whose device has not appeared on the host yet.
    ``failed``: vNICs that cannot run, with the reason.
    """

    host_id: UUID
    revision: int
    fleet_revision: int
    waiting: tuple[UUID, ...]
    failed: dict[UUID, str]
    at: float
    preprogrammed: bytes = b""
    """Packed `routes.REVISION` of the document's preprogrammed VPCs, all of them; 0: none yet."""
    unheld: tuple[int, ...] = ()
    """Those of them that have more routes than fit: what is missing is learned."""


# ---- what an operator is shown -----------------------------------------------------------------


class ShowRequest(Message, frozen=True, kw_only=True):
    """Ask a vSwitch or gateway for its tables; at most ``limit`` rows of each."""

    limit: int = 1000


class PortView(Value, frozen=True, kw_only=True):
    """A port of a vSwitch with its counters."""

    vnic_id: UUID
    device: str
    vni: int
    ip: str
    ip6: str = ""
    mac: str
    state: str
    """active, waiting (no device yet) or failed."""
    rules_in: int
    rules_out: int
    tx_packets: int
    tx_bytes: int
    rx_packets: int
    rx_bytes: int
    local: int
    direct: int
    relayed: int
    drops: dict[str, int]


class FcView(Value, frozen=True, kw_only=True):
    """An entry of the forwarding cache."""

    vni: int
    ip: str
    vtep: str
    mac: str
    generation: int
    revision: int
    age_ms: float
    """Since a gateway last confirmed it."""
    idle_ms: float
    """Since a packet last used it."""


class SessionView(Value, frozen=True, kw_only=True):
    """A session, the initiator first."""

    vni: int
    protocol: str
    source: str
    destination: str
    state: str
    packets: tuple[int, int]
    bytes: tuple[int, int]
    age_s: float
    idle_s: float


class GatewayView(Value, frozen=True, kw_only=True):
    """A gateway as one vSwitch sees it."""

    gateway_id: UUID
    name: str
    vtep: str
    live: bool
    share: float
    """Of the destinations, 0..1."""
    rtt_us: float | None


class PreprogrammedView(Value, frozen=True, kw_only=True):
    """A VPC of which a vSwitch shall hold every route."""

    vni: int
    revision: int
    """That it holds; 0: none yet."""
    routes: int
    whole: bool
    """False: some routes do not fit, and are learned."""


class VswitchShow(Message, frozen=True, kw_only=True):
    """The tables of one vSwitch."""

    host_id: UUID
    revision: int
    ports: tuple[PortView, ...]
    fc: tuple[FcView, ...]
    fc_total: int
    sessions: tuple[SessionView, ...]
    sessions_total: int
    gateways: tuple[GatewayView, ...]
    drops: dict[str, int]
    """Of the host as a whole, by reason."""
    preprogrammed: tuple[PreprogrammedView, ...] = ()


class DropsRequest(Message, frozen=True, kw_only=True):
    """Ask a vSwitch for up to ``limit`` samples numbered above ``after``, the oldest first.

    ``after`` below 0: the latest ones. ``vnic_id``: only this vNIC's.
    """

    after: int = -1
    limit: int = 100
    vnic_id: UUID | None = None


class DropView(Value, frozen=True, kw_only=True):
    """A dropped packet."""

    number: int
    at: float
    """Unix time, seconds."""
    vnic_id: UUID | None
    """The vNIC that the drop was counted for; None: the host's, or a vNIC's that is gone."""
    reason: str
    rule: UUID | None
    """The rule that denied it; None: none matched, the reason is no rule's, or it is gone."""
    direction: str
    """guest (it came from the guest) or underlay."""
    length: int
    summary: str
    frame: bytes
    """Its first bytes, at most 128."""


class DropsReply(Message, frozen=True, kw_only=True):
    """Samples in order, and the counts of all drops by reason.

    ``next``: what to ask after next time; ``more``: there is something already. ``missed``:
    samples after the asked number that newer ones have replaced. ``lost``: drops that were
    counted but not sampled, since the packet path began.
    """

    samples: tuple[DropView, ...]
    next: int
    more: bool
    missed: int
    lost: int
    counts: dict[str, int]


class FlowsRequest(Message, frozen=True, kw_only=True):
    """Ask a vSwitch for the ``limit`` sessions that move most bytes, watched for ``seconds``."""

    seconds: float = 1.0
    limit: int = 20


class FlowView(Value, frozen=True, kw_only=True):
    """A session with its rates, each way: from the initiator, to it."""

    session: SessionView
    packets_per_s: tuple[float, float]
    bits_per_s: tuple[float, float]


class FlowsReply(Message, frozen=True, kw_only=True):
    """The top sessions, those that move most bytes first; of ``total`` in the table."""

    flows: tuple[FlowView, ...]
    total: int
    seconds: float


class TraceRequest(Message, frozen=True, kw_only=True):
    """Ask a vSwitch or gateway what would become of a frame that came in now."""

    frame: bytes = b""
    vnic_id: UUID | None = None
    """The vNIC whose guest sends it; None: it comes from the underlay."""


class TraceStep(Value, frozen=True, kw_only=True):
    """One thing that the program does with the frame, in order.

    ``action``: look up, write or delete (an entry of ``table``), rule (one was asked for) or send.
    Of a rule ``key`` is what was asked; ``rule`` is the one that decided, None where none matched
    and the packet is denied by default, or where the rule is none of the API's.
    """

    action: str
    table: str = ""
    key: dict[str, Any] = {}
    found: bool = False
    entry: dict[str, Any] = {}
    generation: int | None = None
    age_s: float | None = None
    """Since the entry was made, or confirmed by a gateway."""
    idle_s: float | None = None
    """Since a packet used it."""
    rule: UUID | None = None
    group: UUID | None = None
    """The security group that the rule is of, and its name: as the controller knows."""
    group_name: str = ""
    text: str = ""
    """The rule, or where the frame is sent, for people."""


class TraceReply(Message, frozen=True, kw_only=True):
    """What became of a frame at one vSwitch or gateway.

    ``verdict``: delivered (to the vNIC ``to_vnic``), sent (to the VTEP ``to_vtep``), answered (its
    sender gets ``frame`` back), refused (dropped, and its sender is told by ``frame``), dropped,
    absorbed (dealt with; nothing is sent) or passed (to the kernel: no packet of guests).
    ``reason`` and ``words``: why it was dropped. ``error``: it could not be traced, all else is
    empty.
    """

    verdict: str = ""
    reason: str = ""
    words: str = ""
    steps: tuple[TraceStep, ...] = ()
    to_vnic: UUID | None = None
    to_vtep: str = ""
    frame: bytes = b""
    """As it leaves; none where it is dropped."""
    summary: str = ""
    error: str | None = None


class VpcView(Value, frozen=True, kw_only=True):
    """The table of one VPC at a gateway."""

    vni: int
    revision: int
    routes: int


class GatewayShow(Message, frozen=True, kw_only=True):
    """The tables of one gateway."""

    gateway_id: UUID
    serving: bool
    vpcs: tuple[VpcView, ...]
    vpcs_total: int
    routes_total: int
    relayed_packets: int
    relayed_bytes: int
    probes: int
    rsp_requests: int
    rsp_entries: int
    drops: dict[str, int]
