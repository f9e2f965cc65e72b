"""/v1/status, and the tables of vSwitches and gateways, fetched over the bus: for operators."""

from typing import Annotated, Final, TypeVar
from uuid import UUID

import msgspec
from fastapi import APIRouter, Query
from sqlalchemy import Table
from starlette.responses import Response

from achelous_controller.api import replies
from achelous_controller.api.context import Operator, Services, ServicesOf
from achelous_controller.api.models.status import FleetStatus, Status
from achelous_controller.domain.errors import NoAnswer
from achelous_controller.store import counts, objects
from achelous_controller.store.schema import gateways, hosts
from achelous_shared import messages, subjects
from achelous_shared.bus import BusError

router = APIRouter(prefix="/v1", tags=["status"])

_ANSWER_S: Final = 2.0

Limit = Annotated[int, Query(ge=1, le=10_000, description="The most rows of each table")]
Show = TypeVar("Show", messages.VswitchShow, messages.GatewayShow)


@router.get("/status", response_model=Status)
async def get_status(_: Operator, services: ServicesOf) -> Response:
    """Count what there is, and tell how gateways and hosts are doing."""
    async with services.database.read() as connection:
        instances = await counts.instances_by_state(connection)
        existing = await counts.objects(connection)
    fleet = services.fleet
    return replies.body(
        Status(
            checks={name: why or "ok" for name, why in services.problems().items()},
            instances=instances,
            objects=existing,
            fleet=None if fleet is None else FleetStatus.model_validate(fleet.fleet_status()),
        )
    )


@router.get("/hosts/{host_id}/vswitch")
async def show_vswitch(
    host_id: UUID, _: Operator, services: ServicesOf, limit: Limit = 1000
) -> Response:
    """Show the ports, forwarding cache, sessions and drops of a host's vSwitch, as it has them."""
    return await _show(services, hosts, "vswitch", host_id, limit, messages.VswitchShow)


@router.get("/gateways/{gateway_id}/tables")
async def show_gateway(
    gateway_id: UUID, _: Operator, services: ServicesOf, limit: Limit = 1000
) -> Response:
    """Show the VPCs, routes and counters of a gateway, as it has them."""
    return await _show(services, gateways, "gateway", gateway_id, limit, messages.GatewayShow)


async def _show(
    services: Services, table: Table, service: str, service_id: UUID, limit: int, kind: type[Show]
) -> Response:
    async with services.database.read() as connection:
        await objects.one(connection, table, service_id, None)
    request = messages.encode(messages.ShowRequest(limit=limit))
    try:
        answer = await services.connected_bus().request(
            subjects.show(service, service_id), request, timeout=_ANSWER_S
        )
        shown = messages.decode(answer, kind)
    except (BusError, messages.BadMessage) as error:
        raise NoAnswer(
            f"the {service} {service_id} gave no answer in {_ANSWER_S:g} s: {error}"
        ) from None
    return Response(msgspec.json.encode(shown), media_type="application/json")
