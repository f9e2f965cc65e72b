"""The OpenAPI document: what FastAPI derives, and what it cannot know."""

from typing import Any, Final

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from achelous_controller.api.models.common import Problem
from achelous_controller.api.problems import MEDIA_TYPE
from achelous_controller.api.tracing import Trace
from achelous_shared.messages import DropsReply, FlowsReply, GatewayShow, VswitchShow

_REF: Final = "#/components/schemas/{name}"
_PROBLEM: Final = {
    "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}},
}
_SHOWN: Final = {
    "/v1/hosts/{host_id}/vswitch": VswitchShow,
    "/v1/hosts/{host_id}/drops": DropsReply,
    "/v1/hosts/{host_id}/flows": FlowsReply,
    "/v1/hosts/{host_id}/trace": Trace,
    "/v1/gateways/{gateway_id}/tables": GatewayShow,
}
_ETAG: Final = {
    "ETag": {"description": "The object's version, for If-Match", "schema": {"type": "string"}}
}
DESCRIPTION: Final = """
Projects own VPCs; instances have vNICs in their subnets; hosts run instances.

Every request under `/v1` carries `Authorization: Bearer TOKEN`: an operator's token, or one of a
project, which sees that project alone. Every error is a problem document (RFC 9457).

If a connection breaks before the reply, or the reply is 503, the request may have been carried out:
send it again. A POST with the same `Idempotency-Key` makes nothing twice; to a repeated DELETE, 404
says that the object is gone; to a repeated PATCH with `If-Match`, 412 that it has changed since.
"""


def describe(app: FastAPI) -> dict[str, Any]:
    """The document of an application; the same object each time."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        _complete(document)
        app.openapi_schema = document
    return app.openapi_schema


def _complete(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    _, shown = msgspec.json.schema_components(_SHOWN.values(), ref_template=_REF)
    problem = Problem.model_json_schema(ref_template=_REF.replace("{name}", "{model}"))
    schemas.update(shown | problem.pop("$defs") | {"Problem": problem})
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _complete_operation(path, operation)


def _complete_operation(path: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    responses["4XX"] = {"description": "The request is refused and changes nothing", **_PROBLEM}
    responses["5XX"] = {"description": "The request may be tried again", **_PROBLEM}
    for status, response in responses.items():
        if not status.startswith("2") or "content" not in response:
            continue
        schema = response["content"]["application/json"]
        if path in _SHOWN:
            schema["schema"] = {"$ref": _REF.format(name=_SHOWN[path].__name__)}
        elif "version" in str(schema):
            response["headers"] = _ETAG
