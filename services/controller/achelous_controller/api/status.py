"""/v1/status, and what vSwitches and gateways show, fetched over the bus: for operators."""

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

After = Annotated[int, Query(ge=-1, le=2**62, description="Samples numbered above this one")]
Samples = Annotated[int, Query(ge=1, le=1000, description="The most rows")]
Seconds = Annotated[float, Query(ge=0.1, le=10, description="So long they are watched")]
Limit = Annotated[int, Query(ge=1, le=10_000, description="The most rows of each table")]
Answer = TypeVar("Answer", bound=messages.Message)


@router.get("/status", response_model=Status)
async def get_status(_: Operator, services: ServicesOf) -> Response:
    """Count what there is, and tell how gateways and hosts are doing."""
    async with services.database.read() as connection:
        counted = await counts.read(connection)
    fleet = services.fleet
    return replies.body(
        Status(
            checks={name: why or "ok" for name, why in services.problems().items()},
            instances=counted.instances,
            objects=counted.objects,
            fleet=None if fleet is None else FleetStatus.model_validate(fleet.fleet_status()),
        )
    )


@router.get("/hosts/{host_id}/vswitch")
async def show_vswitch(
    host_id: UUID, _: Operator, services: ServicesOf, limit: Limit = 1000
) -> Response:
    """Show the ports, forwarding cache, sessions and drops of a host's vSwitch, as it has them."""
    subject = subjects.show("vswitch", host_id)
    await _exists(services, hosts, host_id)
    request = messages.ShowRequest(limit=limit)
    return await _ask(services, subject, request, messages.VswitchShow)


@router.get("/hosts/{host_id}/drops")
async def show_drops(
    host_id: UUID,
    _: Operator,
    services: ServicesOf,
    after: After = -1,
    limit: Samples = 100,
    vnic_id: UUID | None = None,
) -> Response:
    """Show packets that a host's vSwitch dropped: samples with headers, and counts by reason.

    `after` is the `next` of an earlier reply; left out, the latest samples are shown. `frame` has
    the first bytes in base64. `lost` counts drops of which no sample was taken.
    """
    await _exists(services, hosts, host_id)
    request = messages.DropsRequest(after=after, limit=limit, vnic_id=vnic_id)
    return await _ask(services, subjects.drops(host_id), request, messages.DropsReply)


@router.get("/hosts/{host_id}/flows")
async def show_flows(
    host_id: UUID, _: Operator, services: ServicesOf, limit: Samples = 20, seconds: Seconds = 1.0
) -> Response:
    """Watch the sessions of a host's vSwitch for some seconds; show those that move most bytes."""
    await _exists(services, hosts, host_id)
    request = messages.FlowsRequest(seconds=seconds, limit=limit)
    subject = subjects.flows(host_id)
    return await _ask(services, subject, request, messages.FlowsReply, seconds + _ANSWER_S)


@router.get("/gateways/{gateway_id}/tables")
async def show_gateway(
    gateway_id: UUID, _: Operator, services: ServicesOf, limit: Limit = 1000
) -> Response:
    """Show the VPCs, routes and counters of a gateway, as it has them."""
    await _exists(services, gateways, gateway_id)
    request = messages.ShowRequest(limit=limit)
    return await _ask(services, subjects.show("gateway", gateway_id), request, messages.GatewayShow)


async def _exists(services: Services, table: Table, service_id: UUID) -> None:
    async with services.database.read() as connection:
        await objects.one(connection, table, service_id, None)


async def _ask(
    services: Services,
    subject: str,
    request: messages.Message,
    kind: type[Answer],
    timeout: float = _ANSWER_S,
) -> Response:
    """The answer of a vSwitch or gateway as JSON; raises `NoAnswer`."""
    try:
        bus = services.connected_bus()
        answer = await bus.request(subject, messages.encode(request), timeout=timeout)
        shown = messages.decode(answer, kind)
    except (BusError, messages.BadMessage) as error:
        _, service, service_id, _ = subject.rsplit(".", 3)
        raise NoAnswer(
            f"the {service} {service_id} gave no answer in {timeout:g} s: {error}"
        ) from None
    return Response(msgspec.json.encode(shown), media_type="application/json")
