"""``python -m achelous_controller``: the service; with ``openapi``: its OpenAPI document."""

import json
import sys

from prometheus_client import CollectorRegistry

from achelous_controller.api import openapi
from achelous_controller.api.context import Services
from achelous_controller.api.instance_writes import InstanceWrites
from achelous_controller.app import create_routes
from achelous_controller.main import main
from achelous_controller.settings import ControllerSettings
from achelous_controller.store.database import Database, create_engine
from achelous_shared.service import run
from achelous_shared.telemetry import setup_logging


def openapi_document() -> str:
    """The document as committed: indented JSON and a newline. Needs no server."""
    services = Services(Database(create_engine("postgresql+asyncpg:///unused")))
    routes = create_routes(services, InstanceWrites(services.database), CollectorRegistry())
    return json.dumps(openapi.describe(routes), indent=2) + "\n"


def _serve() -> int:
    settings = ControllerSettings()  # type: ignore[call-arg]  # from the environment
    setup_logging("controller", settings.log_level)
    return run(main(settings))


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            sys.exit(_serve())
        case ["openapi"]:
            sys.stdout.write(openapi_document())
        case other:
            sys.exit(f"unknown arguments {' '.join(other)}: give none, or openapi")
