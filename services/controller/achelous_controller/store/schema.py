"""Tables of the desired state: PostgreSQL owns it, all else is a copy with a revision."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
)
from sqlalchemy.dialects.postgresql import ARRAY, CIDR, INET, JSONB

from achelous_shared.names import GATEWAY_SHARDS

metadata: Final = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

VNI: Final = Sequence("vni_seq", start=4096, maxvalue=(1 << 24) - 1, metadata=metadata)
"""A VNI is never used again: a late packet of a deleted VPC can not reach a new one."""

MAC_BLOCK: Final = 4096
"""MACs that are taken from the sequence at a time."""

MAC: Final = Sequence(
    "mac_seq", start=1, increment=MAC_BLOCK, maxvalue=(1 << 40) - 1, metadata=metadata
)
"""Lower 40 bits of a vNIC's MAC; the first byte is 0x02 (locally administered, unicast).

A value is the first of a block that is the caller's.
"""


def _id() -> Column[object]:
    return Column("id", Uuid, primary_key=True)


def _created() -> Column[object]:
    return Column(
        "created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()
    )


def _version() -> Column[object]:
    """Counts changes of the object, whoever makes them; it is the object's ETag."""
    return Column("version", Integer, nullable=False, server_default="1")


def _project(*, index: bool = True) -> Column[object]:
    return Column("project_id", Uuid, ForeignKey("projects.id"), nullable=False, index=index)


projects: Final = Table(
    "projects",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    Column("quotas", JSONB, nullable=False),
    _created(),
    _version(),
)

usage: Final = Table(  # what a project has of each domain.quotas.Resource
    "usage",
    metadata,
    Column("project_id", Uuid, ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    # counted and given back like hosts.vnic_count; taken last in the order of locks
    Column("vpcs", BigInteger, nullable=False, server_default="0"),
    Column("subnets", BigInteger, nullable=False, server_default="0"),
    Column("security_groups", BigInteger, nullable=False, server_default="0"),
    # those of default groups, too
    Column("security_group_rules", BigInteger, nullable=False, server_default="0"),
    Column("instances", BigInteger, nullable=False, server_default="0"),
    Column("vnics", BigInteger, nullable=False, server_default="0"),
)

tokens: Final = Table(
    "tokens",
    metadata,
    _id(),
    Column("project_id", Uuid, ForeignKey("projects.id"), index=True),  # null: an operator's
    Column("name", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False, unique=True),  # SHA-256 of a 256-bit random token
    _created(),
)

hosts: Final = Table(
    "hosts",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    Column("vtep", INET, nullable=False, unique=True),
    Column("capacity", Integer, nullable=False),
    # counted when an instance is accepted, given back when its deletion is, both by the API
    Column("vnic_count", Integer, nullable=False, server_default="0"),
    # of its document; the row's lock orders the writers of the document
    Column("revision", BigInteger, nullable=False, server_default="0"),
    # whether it takes no more vNICs, whatever its capacity
    Column("draining", Boolean, nullable=False, server_default="false"),
    _created(),
    _version(),
    CheckConstraint("vnic_count >= 0 AND vnic_count <= capacity", name="capacity"),
    Index(None, "vnic_count", "id"),
)

_ALL_SHARDS: Final = "{" + ",".join(map(str, range(GATEWAY_SHARDS))) + "}"

gateways: Final = Table(
    "gateways",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    Column("vtep", INET, nullable=False, unique=True),
    Column("shards", ARRAY(SmallInteger), nullable=False, server_default=_ALL_SHARDS),
    _created(),
    _version(),
)

fleet: Final = Table(  # one row: the revision of the fleet document
    "fleet",
    metadata,
    Column("id", Boolean, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    CheckConstraint("id", name="single"),
)

vpcs: Final = Table(
    "vpcs",
    metadata,
    _id(),
    _project(),
    Column("name", Text, nullable=False),
    Column("vni", Integer, nullable=False, unique=True),
    # of its routes; the row's lock orders the writers of the VPC
    Column("revision", BigInteger, nullable=False, server_default="0"),
    # where the search for a free identity goes on, so that one given up is used again late
    Column("next_identity", Integer, nullable=False, server_default="1"),
    Column("programming_model", Text, nullable=False, server_default="alm"),  # domain, of that name
    _created(),
    _version(),
    UniqueConstraint("project_id", "name"),
)

subnets: Final = Table(
    "subnets",
    metadata,
    _id(),
    _project(),
    Column("vpc_id", Uuid, ForeignKey("vpcs.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("cidr", CIDR, nullable=False),
    Column("gateway_ip", INET, nullable=False),
    # where the search for a free address goes on, so that one given back is used again late
    Column("next_ip", INET, nullable=False),
    # all three or none of them
    Column("cidr6", CIDR),
    Column("gateway_ip6", INET),
    Column("next_ip6", INET),
    Column("dns_servers", ARRAY(INET), nullable=False, server_default="{}"),
    Column("dhcp_lease_s", Integer, nullable=False, server_default="3600"),
    _created(),
    _version(),
    UniqueConstraint("vpc_id", "name"),
    UniqueConstraint("vpc_id", "cidr"),
)

security_groups: Final = Table(
    "security_groups",
    metadata,
    _id(),
    _project(),
    Column("vpc_id", Uuid, ForeignKey("vpcs.id"), nullable=False),
    Column("name", Text, nullable=False),
    _created(),
    _version(),
    UniqueConstraint("vpc_id", "name"),
)

security_group_rules: Final = Table(
    "security_group_rules",
    metadata,
    _id(),
    Column(
        "security_group_id",
        Uuid,
        ForeignKey("security_groups.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("egress", Boolean, nullable=False),
    Column("protocol", SmallInteger, nullable=False),  # 0: any
    Column("port_min", Integer, nullable=False),
    Column("port_max", Integer, nullable=False),  # of ICMP both are type << 8 | code
    Column("remote", CIDR),  # or a group
    Column(
        "remote_group_id", Uuid, ForeignKey("security_groups.id", ondelete="CASCADE"), index=True
    ),
    Column("priority", Integer, nullable=False, server_default="1000"),
    Column("allow", Boolean, nullable=False, server_default="true"),
    _created(),
    CheckConstraint("remote IS NULL <> (remote_group_id IS NULL)", name="remote"),
)

identities: Final = Table(  # numbers for sets of groups that rules name: domain.identities
    "identities",
    metadata,
    Column("vpc_id", Uuid, ForeignKey("vpcs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("groups", ARRAY(Uuid), nullable=False),  # ascending
    UniqueConstraint("vpc_id", "groups"),
)

retired_identities: Final = Table(  # numbers that somebody may still know as another set's
    "retired_identities",
    metadata,
    Column("vpc_id", Uuid, ForeignKey("vpcs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    # the same for all that were retired together, and for no others of the VPC
    Column("retired_at", DateTime(timezone=True), nullable=False, index=True),
)

instances: Final = Table(
    "instances",
    metadata,
    _id(),
    # its subnets and its host hold these references: each foreign key costs a look-up per row,
    # which twenty thousand rows in one call notice. Who creates locks VPC and host, who deletes
    # a subnet, a group or a host does too
    Column("project_id", Uuid, nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),  # vm, bare_metal, container
    Column("host_id", Uuid, nullable=False),
    Column("state", Text, nullable=False),  # domain.instance_state
    Column("reason", Text),
    # the revision of the host that runs (or, when DELETING, no longer runs) it
    Column("host_revision", BigInteger, nullable=False),
    # when each stage of the last change was done
    Column("accepted_at", DateTime(timezone=True), nullable=False),
    Column("committed_at", DateTime(timezone=True)),
    Column("published_at", DateTime(timezone=True)),
    Column("gateways_applied_at", DateTime(timezone=True)),
    Column("host_applied_at", DateTime(timezone=True)),
    Column("active_at", DateTime(timezone=True)),
    _created(),
    _version(),
    # an index costs each creation, and each ACTIVE, as much as a third of a row; those of a host
    # are found by its vNICs
    Index(None, "project_id", "id"),
    Index(None, "name", "id"),
    Index(None, "kind", "id"),
    # those in ERROR, and a few others: who becomes ACTIVE nearly always had none before either
    Index("instances_reason_idx", "id", postgresql_where="reason IS NOT NULL"),
    # no index names its state, nor what else changes with it, and its pages are filled to 45 %: so
    # who becomes ACTIVE stays on its page, and no index is told
)

pending: Final = Table(  # instances that are not ACTIVE, and what their hosts have to run
    "pending",
    metadata,
    Column("instance_id", Uuid, primary_key=True),
    Column("host_id", Uuid, nullable=False),
    Column("host_revision", BigInteger, nullable=False),
)

vnics: Final = Table(
    "vnics",
    metadata,
    _id(),
    Column("instance_id", Uuid, nullable=False, index=True),  # no foreign keys, as above
    Column("subnet_id", Uuid, nullable=False),
    # copies from its subnet and its instance
    Column("project_id", Uuid, nullable=False),
    Column("vpc_id", Uuid, nullable=False),
    Column("host_id", Uuid, nullable=False),
    Column("position", SmallInteger, nullable=False),  # 0 is the instance's first
    Column("ip", INET, nullable=False),
    Column("ip6", INET),
    Column("mac", BigInteger, nullable=False),  # all 48 bits; a sequence makes them, each once
    Column("vni", Integer, nullable=False),  # of its VPC, so that pages of routes need no join
    Column("revision", BigInteger, nullable=False),  # of the VPC when its route last changed
    Column("identity", Integer, nullable=False, server_default="0"),  # of its groups
    Column(
        "withdrawn", Boolean, nullable=False, server_default="false"
    ),  # its instance is DELETING
    _version(),
    # a VNI is one VPC's, and each of its subnets is a range of this index
    UniqueConstraint("vni", "ip"),
    # costs vNICs without an IPv6 address nothing
    Index("vnics_vni_ip6_idx", "vni", "ip6", unique=True, postgresql_where="ip6 IS NOT NULL"),
    Index(None, "host_id"),
    Index(None, "project_id", "id"),
    Index(None, "vpc_id", "instance_id"),
)

vnic_security_groups: Final = Table(
    "vnic_security_groups",
    metadata,
    Column("vnic_id", Uuid, primary_key=True),  # no foreign keys, as above
    Column("security_group_id", Uuid, primary_key=True, index=True),
)

outbox: Final = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),  # routes, host, fleet
    Column("vni", Integer),  # routes
    Column("host_id", Uuid),  # host
    Column("base", BigInteger),  # routes
    Column("revision", BigInteger, nullable=False),
    # stored as they are: compressing what is read once and deleted cost as much as writing it
    Column("entries", LargeBinary),  # routes: packed
    Column("cohorts", LargeBinary),  # routes: the instances that wait for them, packed
    Column("pending", LargeBinary),  # likewise, of controllers from before there were cohorts
    # host: ids of vNICs that came or went, 16 bytes each; null: anything may have changed
    Column("vnics", LargeBinary),
    Column("created_at", Double, nullable=False),  # Unix time, seconds
    Index("outbox_host_id_idx", "host_id", postgresql_where="host_id IS NOT NULL"),
    # there are thousands of rows about hosts for one with routes
    Index("outbox_routes_idx", "id", postgresql_where="kind = 'routes'"),
)

idempotency_keys: Final = Table(
    "idempotency_keys",
    metadata,
    Column("token_id", Uuid, primary_key=True),  # no foreign key, as above; gone a day after it
    Column("key", Text, primary_key=True),
    Column("request_hash", LargeBinary, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("body", LargeBinary, nullable=False),
    _created(),
)
