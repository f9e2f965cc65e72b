"""What a project may have."""

from enum import StrEnum
from typing import Final


class Resource(StrEnum):
    """What quotas limit; stored and shown as its value."""

    VPCS = "vpcs"
    SUBNETS = "subnets"
    SECURITY_GROUPS = "security_groups"
    SECURITY_GROUP_RULES = "security_group_rules"
    INSTANCES = "instances"
    VNICS = "vnics"


DEFAULTS: Final[dict[Resource, int]] = {
    Resource.VPCS: 100,
    Resource.SUBNETS: 1_000,
    Resource.SECURITY_GROUPS: 1_000,
    Resource.SECURITY_GROUP_RULES: 100_000,
    Resource.INSTANCES: 100_000,
    Resource.VNICS: 200_000,
}
