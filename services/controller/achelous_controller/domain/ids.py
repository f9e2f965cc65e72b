"""Ids of objects: UUIDv7, so that new rows are neighbours in their indexes."""

from uuid import UUID

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """A fresh id, in order of time."""
    return uuid7()
