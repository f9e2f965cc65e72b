"""Every resource of the API as data: where it is, what its tables show, what its commands take."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from achelous_cli.fields import Field
from achelous_cli.output import NONE, Column, Columns, columns
from achelous_cli.units import addresses, when

Verb = Literal["create", "list", "show", "update", "delete"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """``path``: of the collection, with {owner} where it belongs to another resource's object.

    ``parent``: the resource, and the filter by it, within which a name is unique, so that
    PARENT/NAME finds it. ``name``: the member that can stand for the id, if there is one.
    ``nested``: members of the document that are lists, shown as tables. ``secret``: its creation
    tells one, once. ``examples``: by verb, after the command.
    """

    noun: str
    title: str
    path: str
    help: str
    examples: Mapping[Verb, str]
    columns: Columns
    nested: Mapping[str, Columns] = field(default_factory=dict)
    create: tuple[Field, ...] = ()
    update: tuple[Field, ...] = ()
    filters: tuple[Field, ...] = ()
    secret: bool = False
    name: str | None = "name"
    parent: tuple[str, str] | None = None
    owner: str | None = None

    @property
    def command(self) -> str:
        """The words of its group of commands."""
        return f"{self.owner} {self.noun}" if self.owner else self.noun

    @property
    def metavar(self) -> str:
        """How help calls a reference to one."""
        return self.noun.upper().replace("-", "_")


_PROJECT: Final = Field(
    flag="--project", member="project_id", refers="project", metavar="PROJECT",
    help="The project, by id or name; an operator has to name it.",
)  # fmt: skip
_NEW_NAME: Final = Field(flag="--name", member="name", help="The new name.")
_BY_NAME: Final = Field(flag="--name", member="name", help="Only with this name.")


def _of(resource: str, title: str, *, required: bool = False) -> Field:
    """An option that names an object of another resource."""
    return Field(
        flag=f"--{resource}", member=f"{resource.replace('-', '_')}_id", refers=resource,
        metavar=resource.upper().replace("-", "_"), help=title, required=required,
    )  # fmt: skip


_OF_PROJECT: Final = _of("project", "Only of this project.")
_VTEP: Final = Field(
    flag="--vtep", member="vtep", metavar="ADDRESS", required=True,
    help="Its address on the underlay, IPv4.",
)  # fmt: skip


_RESOLVERS: Final = Field(
    flag="--dns-server", member="dns_servers", many=True, metavar="ADDRESS",
    help="A resolver that its guests are told. Repeat for several, up to 4.",
)  # fmt: skip


def _quota(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not number.isdigit():
        raise ValueError("write RESOURCE=NUMBER, as in vpcs=10")
    return name, int(number)


_QUOTAS: Final = Field(
    flag="--quota", member="quotas", many=True, metavar="RESOURCE=NUMBER",
    parse=_quota, collect=dict,
    help="A limit: vpcs, subnets, security_groups, security_group_rules, instances or vnics. Repeat"
         " for several.",
)  # fmt: skip

RULE_COLUMNS: Final = columns(
    "id", "direction", "protocol", "port_min", "port_max", "remote", "remote_group_id", "action",
    "priority",
)  # fmt: skip
VNIC_COLUMNS: Final = columns("id", "ip", "mac", "ip6", "vpc_id", "subnet_id", "security_group_ids")


def _draining(value: Any) -> str:
    return "draining" if value else NONE


_ALL: Final = (
    Resource(
        noun="project", title="project", path="projects",
        help="Tenants and their quotas (operators).",
        examples={
            "create": "acme --quota vpcs=10 --quota instances=500", "list": "", "show": "acme",
            "update": "acme --quota instances=1000", "delete": "acme",
        },
        columns=columns("id", "name", created_at=when),
        create=(_QUOTAS,), update=(_NEW_NAME, _QUOTAS), filters=(_BY_NAME,),
    ),
    Resource(
        noun="token", title="token", path="tokens",
        help="Bearer tokens (operators).",
        examples={
            "create": "ci --project acme", "list": "--project acme", "show": "ci",
            "delete": "ci",
        },
        columns=columns("id", "name", "project_id", created_at=when), secret=True,
        create=(_of("project", "Of this project; left out, it is an operator's."),),
        filters=(_OF_PROJECT,),
    ),
    Resource(
        noun="host", title="host", path="hosts",
        help="Machines that run instances (operators).",
        examples={
            "create": "h1 --vtep 198.18.0.11 --capacity 1000", "list": "",
            "update": "h1 --draining", "delete": "h1",
        },
        columns=columns("id", "name", "vtep", "vnic_count", "capacity", draining=_draining),
        create=(
            _VTEP,
            Field(flag="--capacity", member="capacity", kind=int, help="vNICs that fit on it."),
        ),
        update=(
            _NEW_NAME,
            Field(flag="--capacity", member="capacity", kind=int, help="vNICs that fit on it."),
            Field(flag="--draining/--no-draining", member="draining", kind=bool,
                  help="Whether it takes no new instances; those on it stay."),
        ),
        filters=(_BY_NAME,),
    ),
    Resource(
        noun="gateway", title="gateway", path="gateways",
        help="Gateways, which hold every route of the VPCs that they serve (operators).",
        examples={
            "create": "g1 --vtep 198.18.0.1", "list": "", "update": "g1 --name gw-north",
            "delete": "g1",
        },
        columns=columns("id", "name", "vtep"),
        create=(
            _VTEP,
            Field(flag="--shard", member="shards", many=True, kind=int, metavar="0-63",
                  help="It serves VPCs whose VNI modulo 64 is this. Repeat for several;"
                  " left out, all."),
        ),
        update=(_NEW_NAME,), filters=(_BY_NAME,),
    ),
    Resource(
        noun="vpc", title="VPC", path="vpcs",
        help="Networks of a tenant, each isolated from all others.",
        examples={
            "create": "prod", "list": "", "show": "prod", "update": "prod --name production",
            "delete": "prod",
        },
        columns=columns("id", "name", "vni", "programming_model", "project_id", created_at=when),
        create=(
            _PROJECT,
            Field(flag="--programming-model", member="programming_model",
                  kind=Literal["alm", "preprogrammed"],
                  help="How its hosts get routes: those that their guests use, or all ahead;"
                  " left out, alm."),
        ),
        update=(_NEW_NAME,),
        filters=(_BY_NAME, _OF_PROJECT),
        parent=("project", "project_id"),
    ),
    Resource(
        noun="subnet", title="subnet", path="subnets",
        help="Ranges of addresses in a VPC.",
        examples={
            "create": "web --vpc prod --cidr 10.0.1.0/24 --cidr6 fd00:1::/64", "list": "--vpc prod",
            "show": "prod/web", "update": "prod/web --name frontend", "delete": "prod/web",
        },
        columns=columns("id", "name", "cidr", "gateway_ip", "cidr6", "gateway_ip6", "vpc_id"),
        create=(
            _of("vpc", "The VPC, by id or name.", required=True),
            Field(flag="--cidr", member="cidr", metavar="NETWORK", required=True,
                  help="Its addresses, as in 10.0.1.0/24."),
            Field(flag="--gateway-ip", member="gateway_ip", metavar="ADDRESS",
                  help="Its router's address; left out, the first one."),
            Field(flag="--cidr6", member="cidr6", metavar="NETWORK",
                  help="Its IPv6 addresses, as in fd00:1::/64; left out, it has none."),
            Field(flag="--gateway-ip6", member="gateway_ip6", metavar="ADDRESS",
                  help="Its IPv6 router's address; left out, the first one."),
            _RESOLVERS,
            Field(flag="--dhcp-lease", member="dhcp_lease_s", kind=int, metavar="SECONDS",
                  help="Of addresses given by DHCP; left out, 3600."),
        ),
        update=(
            _NEW_NAME,
            _RESOLVERS,
            Field(flag="--dhcp-lease", member="dhcp_lease_s", kind=int, metavar="SECONDS",
                  help="Of addresses given by DHCP."),
        ),
        filters=(_BY_NAME, _of("vpc", "Only of this VPC."), _OF_PROJECT),
        parent=("vpc", "vpc_id"),
    ),
    Resource(
        noun="security-group", title="security group", path="security-groups",
        help="Sets of rules for vNICs of a VPC.",
        examples={
            "create": "web --vpc prod", "list": "--vpc prod", "show": "prod/web",
            "update": "prod/web --name frontend", "delete": "prod/web",
        },
        columns=columns("id", "name", "vpc_id", created_at=when),
        nested={"rules": RULE_COLUMNS},
        create=(_of("vpc", "The VPC, by id or name.", required=True),),
        update=(_NEW_NAME,),
        filters=(_BY_NAME, _of("vpc", "Only of this VPC."), _OF_PROJECT),
        parent=("vpc", "vpc_id"),
    ),
    Resource(
        noun="rule", title="rule", path="security-groups/{owner}/rules",
        help="The rules of a security group; they take effect on running instances at once.",
        examples={
            "create": "prod/web --direction ingress --protocol tcp --port 80 --port-max 443",
            "list": "prod/web",
            "show": "prod/web 019aa0c1-6f1e-7d35-a7a8-4f1d3b8f7f10",
            "delete": "prod/web 019aa0c1-6f1e-7d35-a7a8-4f1d3b8f7f10",
        },
        columns=RULE_COLUMNS,
        create=(
            Field(flag="--direction", member="direction", kind=Literal["ingress", "egress"],
                  required=True, help="Of the packets that open a flow, seen from the vNIC."),
            Field(flag="--protocol", member="protocol", metavar="PROTOCOL",
                  help="any, icmp, icmp6, tcp, udp or a number."),
            Field(flag="--port", member="port_min", kind=int, metavar="PORT",
                  help="Destination port, or the first of a range; left out, all."),
            Field(flag="--port-max", member="port_max", kind=int, metavar="PORT",
                  help="Last port of a range; left out, --port alone."),
            Field(flag="--remote", member="remote", metavar="NETWORK",
                  help="Addresses of the other side; left out, all."),
            Field(flag="--remote-group", member="remote_group_id", refers="security-group",
                  metavar="GROUP", help="Instead: members of this group of the VPC."),
            Field(flag="--icmp-type", member="icmp_type", kind=int, metavar="TYPE",
                  help="Of icmp and icmp6; left out, all."),
            Field(flag="--icmp-code", member="icmp_code", kind=int, metavar="CODE",
                  help="Of that type; left out, all."),
            Field(flag="--action", member="action", kind=Literal["allow", "deny"],
                  help="What becomes of what matches; left out, allow."),
            Field(flag="--priority", member="priority", kind=int, metavar="NUMBER",
                  help="0 to 65535, lower ones decide first, of equal ones a denial; else 1000."),
        ),
        name=None, owner="security-group",
    ),
    Resource(
        noun="instance", title="instance", path="instances",
        help="VMs, bare metal and containers with their vNICs.",
        examples={
            "list": "--state ERROR", "show": "web-1", "update": "web-1 --name web-old",
        },
        columns=(
            *columns("id", "name", "kind", "state"), Column("ADDRESSES", "vnics", addresses),
            *columns("host_id", "reason"),
        ),
        nested={"vnics": VNIC_COLUMNS},
        update=(_NEW_NAME,),
        filters=(
            _BY_NAME,
            Field(flag="--kind", member="kind", help="Only of this kind.",
                  kind=Literal["vm", "bare_metal", "container"]),
            Field(flag="--state", member="state", help="Only in this state.",
                  kind=Literal["BUILDING", "ACTIVE", "ERROR", "DELETING"]),
            _of("host", "Only on this host."),
            _of("vpc", "Only with a vNIC in this VPC."),
            _OF_PROJECT,
        ),
        parent=("project", "project_id"),
    ),
    Resource(
        noun="vnic", title="vNIC", path="vnics",
        help="Network interfaces of instances.",
        examples={
            "list": "--instance web-1", "show": "prod/10.0.1.7",
            "update": "prod/10.0.1.7 --security-group prod/web",
        },
        columns=columns("id", "ip", "mac", "ip6", "instance_id", "subnet_id", "security_group_ids"),
        update=(
            Field(flag="--security-group", member="security_group_ids", many=True, required=True,
                  refers="security-group", metavar="GROUP",
                  help="Its groups from now on. Repeat for several."),
        ),
        filters=(
            _of("instance", "Only of this instance."),
            _of("subnet", "Only in this subnet."),
            _of("vpc", "Only in this VPC."),
            _OF_PROJECT,
            Field(flag="--ip", member="ip", metavar="ADDRESS", help="Only with this address."),
            Field(flag="--ip6", member="ip6", metavar="ADDRESS",
                  help="Only with this IPv6 address."),
        ),
        name="ip", parent=("vpc", "vpc_id"),
    ),
)  # fmt: skip

RESOURCES: Final[Mapping[str, Resource]] = {resource.noun: resource for resource in _ALL}
