"""The programs of hosts in namespaces."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from packets.hosts import Programs


@pytest.fixture(scope="session")
def programs(objects: Path) -> Iterator[Programs]:
    """For hosts in namespaces."""
    with Programs(objects) as programs:
        yield programs
