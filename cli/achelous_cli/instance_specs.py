"""Instances as the command line and batch files describe them: names where the API wants ids."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from achelous_cli.failures import usage
from achelous_cli.names import is_id

if TYPE_CHECKING:
    from achelous_cli.session import Session

_REFERENCES: Final = {"project_id": "project", "host_id": "host"}
_NIC_FORM: Final = (
    "write subnet=SUBNET, and if wanted ip=ADDRESS, ip6=ADDRESS and group=GROUP (again for more)"
)


def parse_nic(text: str) -> dict[str, Any]:
    """A vNIC of a request from subnet=...,ip=...,ip6=...,group=...; raises ValueError."""
    nic: dict[str, Any] = {}
    groups: list[str] = []
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or not value:
            raise ValueError(f"{part!r} says nothing: {_NIC_FORM}")
        member = {"subnet": "subnet_id", "ip": "ip", "ip6": "ip6"}.get(key)
        if key == "group":
            groups.append(value)
        elif member is None:
            raise ValueError(f"{key!r} is not known: {_NIC_FORM}")
        elif member in nic:
            raise ValueError(f"{key} is given twice")
        else:
            nic[member] = value
    if "subnet_id" not in nic:
        raise ValueError(f"the subnet is missing: {_NIC_FORM}")
    return {**nic, "security_group_ids": groups} if groups else nic


def with_ids(session: "Session", instance: Any) -> Any:
    """A request's instance with ids in place of names; what is no instance is left to the API.

    A security group's name is looked up in the VPC of the vNIC's subnet.
    """
    if not isinstance(instance, Mapping):
        return instance
    found = dict(instance)
    for member, noun in _REFERENCES.items():
        if isinstance(found.get(member), str):
            found[member] = session.resolve(noun, found[member])
    if isinstance(found.get("vnics"), list):
        found["vnics"] = [_nic_with_ids(session, nic) for nic in found["vnics"]]
    return found


def _nic_with_ids(session: "Session", nic: Any) -> Any:
    if not isinstance(nic, Mapping) or not isinstance(nic.get("subnet_id"), str):
        return nic
    found = {**nic, "subnet_id": session.resolve("subnet", nic["subnet_id"])}
    groups = found.get("security_group_ids")
    if isinstance(groups, list):
        found["security_group_ids"] = [
            _group_id(session, group, found["subnet_id"]) for group in groups
        ]
    return found


def _group_id(session: "Session", group: Any, subnet_id: str) -> Any:
    if not isinstance(group, str) or is_id(group):
        return group
    if "/" in group:
        return session.resolve("security-group", group)
    vpc_id = session.vpc_of(subnet_id)
    return session.resolve("security-group", group, {"vpc_id": vpc_id})


def batch_of(content: Any) -> list[Any]:
    """The instances of a batch file: a list of them, or the API's {"instances": [...]}."""
    found = content.get("instances") if isinstance(content, Mapping) else content
    if not isinstance(found, list):
        raise usage('a batch file holds a JSON list of instances, or {"instances": [...]}')
    return found
