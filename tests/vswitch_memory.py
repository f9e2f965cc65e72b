"""The in-memory packet path for tests of the agent's logic, with this checkout's layouts."""

import os
from pathlib import Path

from achelous_vswitch.memory import MemoryEvents, MemoryTable, layout, memory_dataplane

__all__ = ["MemoryEvents", "MemoryTable", "layout", "memory_dataplane"]

os.environ.setdefault("ACHELOUS_BPF_DIR", str(Path(__file__).parents[1] / "build/bpf"))
