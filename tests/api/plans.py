"""What PostgreSQL does for a query, as EXPLAIN tells it."""

from collections.abc import Iterator
from typing import Any


def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan and all that it consists of."""
    yield node
    for part in node.get("Plans", ()):
        yield from nodes(part)
