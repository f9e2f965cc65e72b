"""What routes are given: who asks, the database, the page and the version that they ask for."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Protocol
from uuid import UUID

from fastapi import Depends, Header, Query, Request

from achelous_controller.domain.errors import Invalid, Unavailable
from achelous_controller.domain.precondition import Precondition
from achelous_controller.domain.principal import Principal
from achelous_controller.store.database import Database
from achelous_controller.store.objects import Page
from achelous_shared.bus import Bus

MAX_PAGE = 1000
_DEFAULT_PAGE = 100


class FleetView(Protocol):
    """What the programming side knows of gateways, hosts and the leader."""

    def status(self) -> dict[str, str | None]: ...

    def fleet_status(self) -> object: ...


@dataclass(slots=True)
class Services:
    """What the API works with; ``bus`` and ``fleet`` come up after it."""

    database: Database
    bus: Bus | None = None
    fleet: FleetView | None = None
    database_problem: str | None = field(default="not asked yet")

    def problems(self) -> dict[str, str | None]:
        """Each check of /readyz: None when all is well, else what is wrong."""
        without = {"bus": "not connected yet", "leader": "not known before the bus is there"}
        return {
            "database": self.database_problem,
            **(without if self.fleet is None else self.fleet.status()),
        }

    def connected_bus(self) -> Bus:
        """The bus; raises `Unavailable` while it is not there."""
        if self.bus is None or not self.bus.connected:
            raise Unavailable("the bus cannot be reached")
        return self.bus


# What FastAPI calls is async throughout: it would run anything else in a thread, for each request.


async def services(request: Request) -> Services:
    """The services of the application."""
    found: Services = request.app.state.services
    return found


async def _caller(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


async def _operator(caller: Annotated[Principal, Depends(_caller)]) -> Principal:
    caller.must_be_operator()
    return caller


async def _database(request: Request) -> Database:
    found: Services = request.app.state.services
    return found.database


async def _precondition(
    if_match: Annotated[
        str | None,
        Header(description="ETags; the object has to be at one of them, or nothing changes"),
    ] = None,
) -> Precondition:
    return Precondition.parse(if_match)


async def _page(
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = _DEFAULT_PAGE,
    cursor: Annotated[
        str | None, Query(max_length=64, description="`next` of the page before")
    ] = None,
) -> Page:
    return Page(None if cursor is None else _id_of(cursor), limit)


async def _accepted_at(request: Request) -> datetime:
    at: datetime = request.state.accepted_at
    return at


def cursor_after(ids: Sequence[UUID | str], limit: int) -> str | None:
    """The cursor that follows a page with these ids; None after the last page."""
    if len(ids) < limit:
        return None
    return base64.urlsafe_b64encode(UUID(str(ids[-1])).bytes).decode().rstrip("=")


def _id_of(cursor: str) -> UUID:
    try:
        return UUID(bytes=base64.urlsafe_b64decode(f"{cursor}=="))
    except (binascii.Error, ValueError):
        raise Invalid.field("cursor", cursor, "take it from `next` of the page before") from None


Caller = Annotated[Principal, Depends(_caller)]
Operator = Annotated[Principal, Depends(_operator)]
Store = Annotated[Database, Depends(_database)]
Match = Annotated[Precondition, Depends(_precondition)]
Wanted = Annotated[Page, Depends(_page)]
AcceptedAt = Annotated[datetime, Depends(_accepted_at)]
ServicesOf = Annotated[Services, Depends(services)]
