"""The programs against the second, independent model of them (tests/model): no difference.

A case is one frame that both have met, in whatever state the frames, the waits and the changes of
tables before it have left. Found by hypothesis: the same ones in every run, or with
ACHELOUS_MODEL_CASES as many others.
"""

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from packets.datapath import SMALL
from packets.differential.both import ROOM
from packets.differential.playing import play
from packets.differential.situations import Situation, situations
from packets.differential.steps import Step, steps

from achelous_shared.bpf import BpfObject

pytestmark = pytest.mark.kernel

CASES: Final = 2_000
SEQUENCES: Final = 100
"""Of one run of hypothesis."""


@pytest.fixture(scope="module")
def small(objects: Path) -> Iterator[BpfObject]:
    """The vSwitch with a table of few sessions and room for the routes that a sequence learns."""
    sizes = SMALL | {"sessions": ROOM, "session_ring": ROOM, "fc": 256, "fc_index": 256}
    with BpfObject.open(objects / "vswitch.bpf.o", pin_dir=None, max_entries=sizes) as loaded:
        yield loaded


def sequences(loaded: BpfObject, met: Counter[str], **options: Any) -> Any:
    """A test of some sequences, which adds to `met` what they have met."""

    @settings(
        max_examples=SEQUENCES, deadline=None, database=None,
        phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False, **options,
    )  # fmt: skip
    @given(situations(), steps)
    def test(situation: Situation, what: list[Step]) -> None:
        met.update(play(loaded, situation, what))

    return test


def test_the_programs_do_what_the_model_does(small: BpfObject) -> None:
    met: Counter[str] = Counter()
    if wanted := int(os.environ.get("ACHELOUS_MODEL_CASES", "0")):
        while met["cases"] < wanted:
            number = random.SystemRandom().getrandbits(32)
            seed(number)(sequences(small, met))()
    else:
        sequences(small, met, derandomize=True)()
    print(sorted(met.items()))
    assert met["cases"] >= max(wanted, CASES)
