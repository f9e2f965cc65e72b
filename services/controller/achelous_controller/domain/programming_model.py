"""How hosts get the routes of a VPC."""

from enum import StrEnum


class ProgrammingModel(StrEnum):
    """Chosen when the VPC is made, and kept."""

    ALM = "alm"
    """Hosts learn, on demand, the routes that their guests use (active learning mechanism)."""
    PREPROGRAMMED = "preprogrammed"
    """Every host with a vNIC in the VPC gets every route, before anybody asks for it."""
