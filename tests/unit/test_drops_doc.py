"""docs/drops.md says what ach_drop.h says."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_table_of_drop_reasons_is_current() -> None:
    """If not: scripts/drops-doc > docs/drops.md."""
    printed = subprocess.run(
        [ROOT / "scripts/drops-doc"], check=True, timeout=30, capture_output=True, text=True
    ).stdout
    assert printed == (ROOT / "docs/drops.md").read_text()
