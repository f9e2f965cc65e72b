"""The programs against the second, independent model of them (tests/model): no difference.

A case is one frame that both have met, in whatever state the frames, waits and changes of tables
before it have left. The sequences are hypothesis's, by seeds from ACHELOUS_MODEL_SEED (0) on: the
same ones in every run. ACHELOUS_MODEL_CASES asks for more. build/model.json says what was met.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

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
"""At least, in every run."""
SEQUENCES: Final = 100
"""Of one round of hypothesis: some 25 frames each."""
MOST_ROUNDS: Final = 15
"""In which everything of MET must have been met."""
MET: Final = {
    # what becomes of frames
    "guest", "wire", "back", "drop", "next", "local", "direct", "relayed", "learn_events", "hit",
    "slow_path", "told TTL_EXPIRED", "told TOO_BIG", "told FOR_ROUTER",
    # how far sessions come
    "6 SYN_SENT", "6 SYN_RECEIVED", "6 ESTABLISHED", "6 CLOSING", "6 CLOSED", "17 UDP_SENT",
    "17 UDP_REPLIED", "1 ICMP", "58 ICMP", "47 OTHER", "reclaimed",
    # every reason for a drop that the model knows
    "TRUNCATED", "UNSUPPORTED_ETHERTYPE", "SPOOFED_MAC", "SPOOFED_IP", "BAD_IP_HEADER", "FRAGMENT",
    "MULTICAST", "ACL_EGRESS", "ACL_INGRESS", "SESSION_TABLE_FULL", "NO_GATEWAY", "UNKNOWN_VTEP",
    "BAD_VXLAN", "UNKNOWN_VNI", "UNKNOWN_ENDPOINT", "FOREIGN_MAC", "TOO_BIG", "TTL_EXPIRED",
    "BAD_ARP", "PORT_NOT_READY", "IDENTITY_UNKNOWN", "SESSION_LIMIT", "TCP_MIDSTREAM",
    "EXTENSION_HEADERS", "BAD_ADDRESS", "LINK_LOCAL", "BAD_ND", "FOR_ROUTER", "UNRELATED_ICMP",
    "LOST_CONGESTION",
}  # fmt: skip
"""What every run must have met."""


@pytest.fixture(scope="module")
def small(objects: Path) -> Iterator[BpfObject]:
    """The vSwitch with a table of few sessions, and much room where it may forget what it likes."""
    sizes = SMALL | {
        "sessions": ROOM, "session_ring": ROOM, "fc": 256, "fc_index": 256,
        "relayed": 8192, "fragments": 8192,
    }  # fmt: skip
    with BpfObject.open(objects / "vswitch.bpf.o", pin_dir=None, max_entries=sizes) as loaded:
        yield loaded


def one_round(loaded: BpfObject, met: Counter[str], number: int) -> None:
    """SEQUENCES sequences, those of the seed `number`; adds to `met` what they have met."""

    @seed(number)
    @settings(
        max_examples=SEQUENCES, deadline=None, database=None, report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(situations(), steps)
    def agree(situation: Situation, what: list[Step]) -> None:
        met.update(play(loaded, situation, what))

    try:
        agree()
    except AssertionError as error:
        error.add_note(f"Again by ACHELOUS_MODEL_SEED={number} and ACHELOUS_MODEL_CASES=1.")
        raise


@pytest.mark.timeout(3600)  # of 100,000 cases
def test_the_programs_do_what_the_model_does(small: BpfObject) -> None:
    met: Counter[str] = Counter()
    cases = int(os.environ.get("ACHELOUS_MODEL_CASES", CASES))
    first = int(os.environ.get("ACHELOUS_MODEL_SEED", 0))
    for number in range(first, first + max(MOST_ROUNDS, cases // SEQUENCES)):
        one_round(small, met, number)
        missing = sorted(MET - met.keys())
        if met["cases"] >= cases and not missing:
            break
    report = Path(os.environ["ACHELOUS_BPF_DIR"]).parent / "model.json"
    report.write_text(json.dumps(met, indent=1, sort_keys=True) + "\n")
    assert met["cases"] >= cases
    assert not missing
