"""/v1/hosts/{id}/trace: what a packet would meet, from host to host: for operators."""

import base64
import binascii
from typing import Annotated, Final
from uuid import UUID

import msgspec
from fastapi import APIRouter
from pydantic import Field
from starlette.responses import Response

from achelous_controller.api.context import Operator, ServicesOf
from achelous_controller.api.models.common import EXAMPLE_ID, Body, example
from achelous_controller.api.tracing import Walk
from achelous_controller.domain.errors import Invalid
from achelous_controller.store import objects
from achelous_controller.store.schema import hosts

router = APIRouter(prefix="/v1", tags=["status"])

_MAX_TEXT: Final = 4000
"""Of base64: what an agent takes as a frame, 14 to 3,000 bytes."""

Frame = Annotated[
    str,
    Field(
        min_length=20,
        max_length=_MAX_TEXT,
        pattern=r"^[A-Za-z0-9+/]+={0,2}$",
        description="An Ethernet frame as the guest sends it, in base64",
    ),
]


class TraceBody(Body):
    """A frame and the vNIC that it comes from."""

    model_config = example(
        {
            "vnic_id": EXAMPLE_ID,
            "frame": "DqzhAAABAgAAAAABCABFAAAcAABAAEABAAAAAAAAAAAAAAAAAAAAAAAA",
        }
    )

    vnic_id: UUID
    frame: Frame


@router.post("/hosts/{host_id}/trace")
async def trace_packet(
    host_id: UUID, body: TraceBody, _: Operator, services: ServicesOf
) -> Response:
    """Say what would become of a frame that a guest on this host sent now.

    It runs through the programs and tables of every host and gateway on its way, which notice
    nothing of it: no session is made, nothing is counted, nothing is sent.
    """
    try:
        frame = base64.b64decode(body.frame, validate=True)
    except binascii.Error as error:
        raise Invalid.field("frame", body.frame, f"no base64: {error}") from None
    async with services.database.read() as connection:
        host = await objects.one(connection, hosts, host_id, None)
    trace = await Walk(services).start(host, body.vnic_id, frame)
    return Response(msgspec.json.encode(trace), media_type="application/json")
