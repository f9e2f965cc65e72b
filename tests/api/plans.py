"""What PostgreSQL does for a query, as EXPLAIN tells it."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Select

from achelous_controller.store.listing import Query


def filled_in(query: Query) -> Select[Any]:
    """A statement with the values to execute it with."""
    statement, values = query
    return statement.params(values)


def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan and all that it consists of."""
    yield node
    for part in node.get("Plans", ()):
        yield from nodes(part)
