"""The OpenAPI document, and the page made of it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from api.client import Api
from pydantic import TypeAdapter

from achelous_controller.api.models import fleet, instances, projects, security_groups, status, vpcs

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(COMMITTED.read_text())
    return found


def test_the_committed_document_is_the_applications() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "achelous_controller", "openapi"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout

    assert printed == COMMITTED.read_text(), "run `make openapi` and commit docs/openapi.json"


SHOWN = {"VswitchShow", "GatewayShow", "DropsReply", "FlowsReply", "Trace"}
"""What data planes show: messages of the bus, described by their fields."""


def test_every_body_has_an_example(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            bodies = [operation.get("requestBody"), *operation["responses"].values()]
            for body in filter(None, bodies):
                for content in body.get("content", {}).values():
                    name = content["schema"]["$ref"].rpartition("/")[2]
                    if name.startswith("Page_") or name in SHOWN:
                        continue
                    assert schemas[name].get("examples"), f"{method} {path}: {name} has none"


@pytest.mark.parametrize(
    "model",
    [
        model
        for module in (fleet, instances, projects, security_groups, status, vpcs)
        for model in vars(module).values()
        if isinstance(model, type)
        and model.__module__ == module.__name__
        and getattr(model, "model_config", {}).get("json_schema_extra")
    ],
)
def test_every_example_is_valid(model: type) -> None:
    for example in TypeAdapter(model).json_schema()["examples"]:
        TypeAdapter(model).validate_json(json.dumps(example))


async def test_the_documentation_needs_nothing_from_elsewhere(operator: Api) -> None:
    page = (await operator.http.get("/docs")).text

    assert "POST" in page
    assert "/v1/instances:batch" in page
    assert "http://" not in page
    assert "https://" not in page
    assert (await operator.http.get("/openapi.json")).json() == json.loads(COMMITTED.read_text())
