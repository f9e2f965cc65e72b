"""The REST application, ready to be served."""

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from achelous_controller.api import (
    docs,
    gateways,
    hosts,
    instances,
    openapi,
    projects,
    security_groups,
    status,
    subnets,
    tokens,
    trace,
    vnics,
    vpcs,
)
from achelous_controller.api.context import Services
from achelous_controller.api.instance_writes import InstanceWrites
from achelous_controller.api.middleware import Front, Problems
from achelous_controller.api.problems import respond
from achelous_controller.api.short_way import ShortWay
from achelous_shared.telemetry import Check, health_routes

_RESOURCES = (
    projects, tokens, hosts, gateways, vpcs, subnets, security_groups, instances, vnics, status,
    trace,
)  # fmt: skip


def create_app(services: Services, registry: CollectorRegistry) -> Front:
    """What is served."""
    writes = InstanceWrites(services.database)
    routes = create_routes(services, writes, registry)
    return Front(routes, ShortWay(writes), services.database, registry)


def create_routes(
    services: Services, writes: InstanceWrites, registry: CollectorRegistry
) -> FastAPI:
    """The API with its health routes and its documentation, for those whom `Front` has admitted."""
    app = FastAPI(
        title="Achelous",
        version="1",
        description=openapi.DESCRIPTION.strip(),
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = services
    app.state.instance_writes = writes
    for resource in _RESOURCES:
        app.include_router(resource.router)
    _setup_problems(app)
    _setup_documentation(app)
    app.router.routes.extend(health_routes(_checks(services), registry))
    return app


def _setup_problems(app: FastAPI) -> None:
    async def problem(request: Request, error: Exception) -> Response:
        return respond(request, error)

    app.add_exception_handler(HTTPException, problem)
    app.add_exception_handler(RequestValidationError, problem)
    app.add_middleware(Problems)


def _setup_documentation(app: FastAPI) -> None:
    async def document(_: Request) -> Response:
        return JSONResponse(openapi.describe(app))

    async def for_people(_: Request) -> Response:
        return HTMLResponse(docs.page(openapi.describe(app)))

    app.add_route("/openapi.json", document, include_in_schema=False)
    app.add_route("/docs", for_people, include_in_schema=False)


def _checks(services: Services) -> dict[str, Check]:
    def check(name: str) -> Check:
        return lambda: services.problems()[name]

    return {name: check(name) for name in ("database", "bus", "leader")}
