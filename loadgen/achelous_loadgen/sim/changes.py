"""Telling who waits for a simulated host that its packet path has changed, at no cost at rest."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from achelous_vswitch.dataplane import Array
from achelous_vswitch.memory import MemoryTable

Look = Callable[[], None]


class Changes:
    """Those who look at a host again whenever a table of its has changed."""

    def __init__(self) -> None:
        self._looks: dict[Look, None] = {}

    @contextmanager
    def looking(self, look: Look) -> Iterator[None]:
        """``look`` is called upon each change within the block."""
        self._looks[look] = None
        try:
            yield
        finally:
            del self._looks[look]

    def tell(self) -> None:
        """Something has changed."""
        for look in tuple(self._looks):
            look()


class ToldTable(MemoryTable):
    """A table that tells of each change once it is there."""

    def __init__(self, like: MemoryTable, changes: Changes) -> None:
        """An empty one with the layout and limit of another."""
        super().__init__(like.key_dtype, like.value_dtype, like.limit)
        self._changes = changes

    def update(self, key: Any, value: Any) -> None:
        super().update(key, value)
        self._changes.tell()

    def delete(self, key: Any) -> bool:
        found = super().delete(key)
        self._changes.tell()
        return found

    def update_batch(self, keys: Array, values: Array) -> None:
        super().update_batch(keys, values)
        self._changes.tell()

    def delete_batch(self, keys: Array) -> int:
        found = super().delete_batch(keys)
        self._changes.tell()
        return found
