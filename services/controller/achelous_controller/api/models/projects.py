"""Bodies about projects and tokens."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import Field

from achelous_controller.api.models.common import (
    EXAMPLE_ID,
    EXAMPLE_TIME,
    Body,
    Name,
    Timed,
    View,
    example,
)
from achelous_controller.domain.quotas import DEFAULTS, Resource

Limit = Annotated[int, Field(ge=0, le=100_000_000)]
_EXAMPLE_QUOTAS = {resource.value: quota for resource, quota in DEFAULTS.items()}


class Quotas(Body):
    """The most that a project may have of each resource."""

    vpcs: Limit = DEFAULTS[Resource.VPCS]
    subnets: Limit = DEFAULTS[Resource.SUBNETS]
    security_groups: Limit = DEFAULTS[Resource.SECURITY_GROUPS]
    security_group_rules: Limit = DEFAULTS[Resource.SECURITY_GROUP_RULES]
    instances: Limit = DEFAULTS[Resource.INSTANCES]
    vnics: Limit = DEFAULTS[Resource.VNICS]


class QuotasChange(Body):
    """New values of some quotas; one below what is used only stops growth."""

    vpcs: Limit | None = None
    subnets: Limit | None = None
    security_groups: Limit | None = None
    security_group_rules: Limit | None = None
    instances: Limit | None = None
    vnics: Limit | None = None


class ProjectCreate(Body):
    """A new project."""

    model_config = example({"name": "shop", "quotas": {"instances": 20_000}})

    name: Name
    quotas: Quotas = Quotas()


class ProjectUpdate(Body):
    """What changes; the rest stays."""

    model_config = example({"quotas": {"instances": 50_000}})

    name: Name | None = None
    quotas: QuotasChange = QuotasChange()


class Project(Timed):
    """A project."""

    model_config = example(
        {
            "id": EXAMPLE_ID,
            "version": 1,
            "created_at": EXAMPLE_TIME,
            "name": "shop",
            "quotas": _EXAMPLE_QUOTAS,
        }
    )

    name: str
    quotas: Quotas


class Usage(View):
    """What a project has, beside what it may have."""

    model_config = example({
                    "used": {"vpcs": 1, "subnets": 2, "security_groups": 1,
                             "security_group_rules": 6, "instances": 8, "vnics": 8},
                    "quotas": _EXAMPLE_QUOTAS,
                })  # fmt: skip

    used: dict[Resource, int]
    quotas: Quotas


class TokenCreate(Body):
    """A new bearer token."""

    model_config = example({"name": "ci", "project_id": EXAMPLE_ID})

    name: Name
    project_id: UUID | None = Field(None, description="Null: a token of the operators")


class Token(View):
    """A token, without its secret."""

    model_config = example(
        {
            "id": EXAMPLE_ID,
            "created_at": EXAMPLE_TIME,
            "name": "ci",
            "project_id": EXAMPLE_ID,
        }
    )

    id: UUID
    created_at: datetime
    name: str
    project_id: UUID | None

    @property
    def version(self) -> int:
        """A token never changes."""
        return 1


class NewToken(Token):
    """A token with its secret, which is shown this once and stored only as a hash."""

    model_config = example(
        {
            "id": EXAMPLE_ID,
            "created_at": EXAMPLE_TIME,
            "name": "ci",
            "project_id": EXAMPLE_ID,
            "token": "Z4kV1x3m0t8b5nQ2c7y9w6u1i4o3p0a5s8d7f2g6h1j",
        }
    )

    token: str

    @classmethod
    def of(cls, token: Token, secret: str) -> Self:
        return cls(**token.model_dump(), token=secret)
