"""What each role may say and hear on the bus: its own subjects, and nothing else.

Whoever sets up a NATS server turns this into its users' permissions. Roles are shared by all
services of a kind: the limits keep a vSwitch from publishing routes, not from reading the
document of another host or the routes of a VPC that has no vNIC on its own.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from achelous_shared.subjects import (
    ALL_APPLIED,
    ALL_HOST_CHANGES,
    ALL_HOSTS,
    ALL_OF_HOSTS,
    ALL_PUSHES,
    ALL_ROUTES,
    FLEET,
    HOSTS_STREAM,
    PREFIX,
    REPORT,
    ROUTES_STREAM,
    inbox,
)


class Role(StrEnum):
    """A user of the bus."""

    CONTROLLER = "controller"
    GATEWAY = "gateway"
    VSWITCH = "vswitch"
    OBSERVER = "observer"
    """Tests and people who debug: may do everything."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects that may be published to and subscribed to, NATS wildcards included."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def _inbox(role: Role) -> str:
    return f"{inbox(role)}.>"


def _owns(stream: str) -> tuple[str, ...]:
    """The JetStream requests by which a stream is made, changed, purged and looked at."""
    return (f"$JS.API.STREAM.*.{stream}",)


def _follows(stream: str, *filters: str) -> tuple[str, ...]:
    """The JetStream requests of `Bus.follow`, on the given subjects of a stream."""
    return (
        f"$JS.API.STREAM.INFO.{stream}",
        *(f"$JS.API.CONSUMER.CREATE.{stream}.*.{subject}" for subject in filters),
        f"$JS.API.CONSUMER.DELETE.{stream}.*",
        f"$JS.FC.{stream}.>",
    )


_PERMISSIONS: Final = {
    Role.CONTROLLER: Permissions(
        publish=(
            ALL_ROUTES,
            ALL_HOSTS,
            ALL_HOST_CHANGES,
            FLEET,
            f"{PREFIX}.command.>",
            _inbox(Role.GATEWAY),
            _inbox(Role.VSWITCH),
            *_owns(ROUTES_STREAM),
            *_owns(HOSTS_STREAM),
        ),
        subscribe=(ALL_APPLIED, f"{PREFIX}.snapshot.>", _inbox(Role.CONTROLLER)),
    ),
    Role.GATEWAY: Permissions(
        publish=(
            f"{PREFIX}.applied.gateway.*",
            f"{PREFIX}.snapshot.>",
            ALL_PUSHES,
            _inbox(Role.VSWITCH),
            _inbox(Role.CONTROLLER),
            *_follows(ROUTES_STREAM, ALL_ROUTES),
            *_follows(HOSTS_STREAM, FLEET),
        ),
        subscribe=(
            f"{PREFIX}.rsp.*",
            f"{PREFIX}.command.gateway.>",
            REPORT,
            _inbox(Role.GATEWAY),
        ),
    ),
    Role.VSWITCH: Permissions(
        publish=(
            f"{PREFIX}.applied.host.*",
            f"{PREFIX}.rsp.*",
            f"{PREFIX}.snapshot.>",
            _inbox(Role.CONTROLLER),
            *_follows(HOSTS_STREAM, ALL_OF_HOSTS, FLEET),
            *_follows(ROUTES_STREAM, ALL_ROUTES),
        ),
        subscribe=(f"{PREFIX}.command.vswitch.>", REPORT, ALL_PUSHES, _inbox(Role.VSWITCH)),
    ),
    Role.OBSERVER: Permissions(publish=(">",), subscribe=(">",)),
}


def role_permissions(role: Role) -> Permissions:
    """The subjects of one role."""
    return _PERMISSIONS[role]
