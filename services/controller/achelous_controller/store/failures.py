"""What PostgreSQL's errors mean to the caller of the API."""

import re
from typing import Final

import asyncpg
from sqlalchemy.exc import DBAPIError

from achelous_controller.domain.errors import Conflict, Refused, Unavailable
from achelous_controller.store.database import UNREACHABLE, cause_of

FAILURES = (
    DBAPIError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # after a timeout that came between two messages of a statement
    *UNREACHABLE,
)
"""All that the store raises beside refusals (COPY goes past SQLAlchemy and its exceptions), and so
what it looks like when PostgreSQL is gone or refuses."""

_OUTAGES = ("08", "3D", "53", "57")
"""Classes of errors: connection, no such database (yet), resources, operator's intervention."""

_RETRY = {
    "40001": "it collided with another request",
    "40P01": "it collided with another request",
    "55P03": "what it needs stayed locked by other requests for too long",
    "57014": "it took too long",
}

_UNIQUE: dict[str, tuple[str, str]] = {
    "projects_name_key": ("name", "another project has this name"),
    "hosts_name_key": ("name", "another host has this name"),
    "hosts_vtep_key": ("vtep", "another host has this address"),
    "gateways_name_key": ("name", "another gateway has this name"),
    "gateways_vtep_key": ("vtep", "another gateway has this address"),
    "vpcs_project_id_name_key": ("name", "another VPC of the project has this name"),
    "subnets_vpc_id_name_key": ("name", "another subnet of the VPC has this name"),
    "security_groups_vpc_id_name_key": (
        "name",
        "another security group of the VPC has this name",
    ),
}
"""Constraint -> the field that it is about, and what to say. The field is its last column."""

_KEY: Final = re.compile(r"\([^)]*\)=\((?:.*, )?(?P<last>.*)\)")
"""In the detail of such an error, whatever its language: Key (vpc_id, name)=(0198..., web) ..."""


def refusal(error: Exception) -> Refused | None:
    """What to tell the caller about one of `FAILURES`; None if it is an error of ours."""
    if isinstance(error, UNREACHABLE):
        return Unavailable("the database cannot be reached")
    cause = cause_of(error)
    state: str | None = getattr(cause, "sqlstate", None)
    if state is None or (state[:2] in _OUTAGES and state != "57014"):
        return Unavailable("the database cannot be reached")
    if state in _RETRY:
        return Unavailable(f"the request was given up and changed nothing: {_RETRY[state]}")
    if state == "23505":
        known = _UNIQUE.get(_told(cause, "constraint_name"))
        return Conflict.field(known[0], _taken(cause), known[1]) if known else None
    if state == "23503":
        return Conflict("something that the request refers to was deleted in the meantime")
    return None


def _taken(error: object) -> str | None:
    """The value that somebody has already; None where PostgreSQL does not tell it."""
    key = _KEY.search(_told(error, "detail"))
    return key["last"] if key else None


def _told(error: object, what: str) -> str:
    """What PostgreSQL said beside its message; asyncpg's own exception knows it."""
    inner = getattr(error, "__cause__", None)
    return str(getattr(error, what, None) or getattr(inner, what, None) or "")
