"""Fuzzing of the packet path: its real programs in the kernel, guided by what becomes of frames.

`PYTHONPATH=tests python -m fuzz.fuzz_packets tests/fuzz/corpus/packets -max_total_time=60`:
arguments are libFuzzer's. Nothing is sent anywhere: programs run by BPF_PROG_TEST_RUN on maps of
their own.
"""

import os
import sys
from pathlib import Path
from typing import Final

import atheris
from fuzz.packet_input import mutate
from fuzz.packet_target import PacketTarget
from fuzz.packet_world import PacketWorld

_BEHAVIOURS: Final = 1 << 14


def main() -> None:
    """Fuzz until libFuzzer ends the process; a finding is written to ./crash-<hash>."""
    counters = [atheris._reserve_counter() for _ in range(_BEHAVIOURS)]
    objects = Path(os.environ.get("ACHELOUS_BPF_DIR", "build/bpf"))
    target = PacketTarget(
        PacketWorld.open(objects),
        lambda behaviour: atheris._trace_branch(counters[behaviour % _BEHAVIOURS]),
    )
    atheris.Setup(sys.argv, target, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
