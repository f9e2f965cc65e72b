"""Types that the bodies of several resources share."""

from collections.abc import Callable
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated, Any, Final, Generic, TypeVar
from uuid import UUID

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)

from achelous_controller.domain import networks

EXAMPLE_ID = "01981f2e-7c1a-7d52-9a3e-5f0c1b7d9e42"
EXAMPLE_TIME = "2025-07-18T09:30:00.123456Z"

MAX_NAME: Final = 63
NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_NAME, pattern=NAME_PATTERN),
    Field(description="Letters, digits, dots, hyphens and underscores; begins with the former two"),
]

_BYTE = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_ADDRESS = rf"{_BYTE}(\.{_BYTE}){{3}}"


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("write it as a string")  # noqa: TRY004  pydantic shows ValueErrors
    return value


T = TypeVar("T")


def _parsed(parse: Callable[[str], T], kind: Any) -> BeforeValidator:
    """Text by ``parse``, whose ValueErrors say what would be right; a ``kind`` as it is."""
    return BeforeValidator(
        lambda value: value if isinstance(value, kind) else parse(_text(value)),
        json_schema_input_type=str,
    )


Address = Annotated[
    IPv4Address,
    _parsed(networks.parse_address, IPv4Address),
    WithJsonSchema({"type": "string", "format": "ipv4", "pattern": f"^{_ADDRESS}$"}),
]
Network = Annotated[
    IPv4Network,
    _parsed(networks.parse_network, IPv4Network),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": rf"^{_ADDRESS}/(3[0-2]|[12]?[0-9])$",
            "description": "An IPv4 network in CIDR notation, no bits set after the prefix",
        }
    ),
]
Address6 = Annotated[
    IPv6Address,
    _parsed(networks.parse_address6, IPv6Address),
    WithJsonSchema({"type": "string", "format": "ipv6"}),
]
Network6 = Annotated[
    IPv6Network,
    _parsed(networks.parse_network6, IPv6Network),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^[0-9A-Fa-f:]{2,39}/[0-9]{1,3}$",
            "description": "An IPv6 network in CIDR notation, no bits set after the prefix",
        }
    ),
]
AnyAddress = Annotated[
    IPv4Address | IPv6Address,
    _parsed(networks.parse_any_address, IPv4Address | IPv6Address),
    WithJsonSchema({"anyOf": [{"type": "string", "format": kind} for kind in ("ipv4", "ipv6")]}),
]
AnyNetwork = Annotated[
    IPv4Network | IPv6Network,
    _parsed(networks.parse_any_network, IPv4Network | IPv6Network),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": rf"^({_ADDRESS}/(3[0-2]|[12]?[0-9])|[0-9A-Fa-f:]{{2,39}}/[0-9]{{1,3}})$",
            "description": "A network of either family in CIDR notation, no bits set after the"
            " prefix",
        }
    ),
]


def example(body: dict[str, Any]) -> ConfigDict:
    """The configuration of a model with an example of it."""
    return ConfigDict(json_schema_extra={"examples": [body]})


class Body(BaseModel):
    """What a request says: a field that is not known is an error, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class View(BaseModel):
    """What a reply says."""

    model_config = ConfigDict(from_attributes=True)


class Resource(View):
    """An object with an id. Its ETag is ``version`` in quotes."""

    id: UUID
    version: int = Field(description="Counts the changes of the object; its ETag is this in quotes")


class Timed(Resource):
    """An object that says when it was made."""

    created_at: datetime


V = TypeVar("V", bound=View)


class Page(BaseModel, Generic[V]):
    """Objects in order of id."""

    items: list[V]
    next: str | None = Field(
        description="Pass it as `cursor` to read on; null: there was nothing more"
    )


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str = Field(description="Path in the body, or the name of a parameter")
    value: object = Field(description="What was given, cut short if it is long")
    message: str


class UserProblem(BaseModel):
    """An object that uses the one that shall be deleted."""

    kind: str
    id: str
    name: str


class QuotaProblem(BaseModel):
    """The numbers of an exceeded quota."""

    resource: str
    quota: int
    used: int
    requested: int


class Problem(BaseModel):
    """RFC 9457."""

    model_config = example(
        {
            "type": "urn:achelous:problem:invalid",
            "title": "Invalid input",
            "status": 422,
            "detail": "cidr: 10.0.0.5/24 has bits set after its prefix: the network is 10.0.0.0/24",
            "instance": "/v1/subnets",
            "errors": [
                {
                    "field": "cidr",
                    "value": "10.0.0.5/24",
                    "message": "10.0.0.5/24 has bits set after its prefix: the network is"
                    " 10.0.0.0/24",
                }
            ],
        }
    )

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[FieldProblem] = []
    users: Annotated[
        list[UserProblem] | None, Field(description="The first 20, when it is in use")
    ] = None
    users_total: int | None = None
    quota: QuotaProblem | None = None
