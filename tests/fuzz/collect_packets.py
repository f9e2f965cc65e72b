"""The fuzzer's corpus, anew from the packet tests' case tables: to be run when they have grown.

`PYTHONPATH=tests python -m fuzz.collect_packets`: of the frames that the tests send, those that
make the packet path do what no smaller one did.
"""

import sys
from collections.abc import Iterable
from hashlib import sha1
from pathlib import Path
from typing import Any, Final

import pytest
from fuzz.packet_input import Entry, Step, encode
from fuzz.packet_target import PacketTarget
from fuzz.packet_world import PacketWorld
from packets import datapath, gateway_path, outcome

CORPUS: Final = Path(__file__).parent / "corpus/packets"
OBJECTS: Final = Path("build/bpf")
_ENTRIES: Final = {
    "from_guest": (Entry.ME, Entry.LEASED),
    "from_underlay": (Entry.UNDERLAY,),
    "relay": (Entry.GATEWAY,),
}
_LONGEST: Final = 700


class Collector:
    """A pytest plugin: each frame alone, at each place where it may enter, and each test's first
    ones together."""

    def __init__(self) -> None:
        self.inputs: set[bytes] = set()
        self._ran: list[tuple[str, bytes]] = []
        for module in (datapath, gateway_path):
            module.run = self._run  # type: ignore[attr-defined]

    def _run(self, loaded: Any, program: str, frame: bytes, **context: int) -> outcome.Outcome:
        if len(frame) <= _LONGEST:
            self._ran.append((program, frame))
        return outcome.run(loaded, program, frame, **context)

    def pytest_runtest_teardown(self) -> None:
        """The test is over."""
        for program, frame in self._ran:
            self.inputs |= {encode([Step(entry, frame)]) for entry in _ENTRIES[program]}
        self.inputs.add(encode([Step(_ENTRIES[where][0], frame) for where, frame in self._ran[:4]]))
        self._ran.clear()


def telling(inputs: Iterable[bytes]) -> list[bytes]:
    """Of these, smallest first, what behaves as none before."""
    seen: set[int] = set()
    target = PacketTarget(PacketWorld.open(OBJECTS), seen.add)
    kept = []
    for data in sorted(inputs, key=lambda data: (len(data), data)):
        before = len(seen)
        target(data)
        if len(seen) > before:
            kept.append(data)
    return kept


def main() -> None:
    """Write the corpus."""
    collector = Collector()
    if pytest.main(["tests/packets/vswitch", "tests/packets/gateway", "-q"], plugins=[collector]):
        sys.exit("the packet tests do not pass: no corpus is made of them")
    for data in telling(collector.inputs):
        name = sha1(data, usedforsecurity=False).hexdigest()[:16]
        (CORPUS / name).write_bytes(data)


if __name__ == "__main__":
    main()
