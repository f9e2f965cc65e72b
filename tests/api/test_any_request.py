"""Requests that a machine makes up from the OpenAPI document: no 5xx, nothing undocumented."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from api.client import fresh
from api.processes import ControllerProcess
from hypothesis import settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from achelous_lab.servers.nats import NatsServer
from achelous_lab.servers.postgres import PostgresServer
from achelous_shared.bus_roles import Role

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
EXAMPLES = 20


@pytest.fixture(scope="module")
async def served(
    postgres: PostgresServer, nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[str, str, dict[str, str]]]:
    """A controller with something of everything: its URL, its token, ids by name."""
    directory: Path = tmp_path_factory.mktemp("controller")
    dsn = await postgres.create_database(fresh("db").replace("-", "_"))
    controller = ControllerProcess(directory, dsn, nats_server.url(Role.CONTROLLER))
    await controller.start()
    async with controller.operator() as operator:
        project = await operator.project()
        host = await operator.host()
        vpc = await operator.vpc(project)
        subnet = await operator.subnet(vpc, "10.0.0.0/16")
        group = await operator.make("/security-groups", vpc_id=vpc["id"], name="web")
        made = await operator.instance(subnet)
        ids = {
            "project_id": project["id"],
            "host_id": host["id"],
            "vpc_id": vpc["id"],
            "subnet_id": subnet["id"],
            "group_id": group["id"],
            "rule_id": group["rules"][0]["id"],
            "instance_id": made["id"],
            "vnic_id": made["vnics"][0]["id"],
            "security_group_ids": group["id"],
        }
    yield controller.url, controller.token_file.read_text().strip(), ids
    await controller.process.stop()


DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"
schema = schemathesis.openapi.from_path(DOCUMENT)


def with_real_ids(value: Any, ids: dict[str, str], name: str = "") -> Any:
    """The value with ids of things that exist in place of ids that do not."""
    if isinstance(value, dict):
        return {key: with_real_ids(part, ids, key) for key, part in value.items()}
    if isinstance(value, list):
        return [with_real_ids(part, ids, name) for part in value]
    return ids[name] if isinstance(value, str) and name in ids else value


OF_MACHINES = ("/vswitch", "/tables", "/drops", "/flows", "/trace")


def check(case: schemathesis.Case, served: tuple[str, str, dict[str, str]]) -> None:
    url, token, _ = served
    response = case.call(base_url=url, headers={"Authorization": f"Bearer {token}"})
    if response.status_code in (503, 504) and case.path.endswith(OF_MACHINES):
        return  # nobody is there who could answer
    case.validate_response(response, checks=CHECKS)


@schema.parametrize()  # type: ignore[untyped-decorator]
@settings(max_examples=EXAMPLES, deadline=None, database=None)
def test_a_made_up_request_gets_a_documented_reply(
    case: schemathesis.Case, served: tuple[str, str, dict[str, str]]
) -> None:
    check(case, served)


@schema.parametrize()  # type: ignore[untyped-decorator]
@settings(max_examples=EXAMPLES, deadline=None, database=None)
def test_a_request_about_what_exists_gets_a_documented_reply(
    case: schemathesis.Case, served: tuple[str, str, dict[str, str]]
) -> None:
    case.path_parameters = with_real_ids(case.path_parameters, served[2])
    case.body = with_real_ids(case.body, served[2])

    check(case, served)
