"""`achelous demo` holds what it claims."""

import asyncio
import json
from pathlib import Path

import pytest
from system.cli.conftest import Cli

from achelous_lab.tour.sights import SIGHTS

pytestmark = pytest.mark.kernel

_TOUR_S = 150


async def test_every_claim_holds(objects: Path) -> None:
    child = await Cli({"ACHELOUS_BPF_DIR": str(objects)}).start("demo", "--json")
    try:
        async with asyncio.timeout(_TOUR_S):
            out, err = await child.communicate()
    finally:
        if child.returncode is None:
            child.terminate()
            await child.communicate()

    tour = json.loads(out)
    assert [one for one in tour["shown"] if not one["held"]] == []
    assert len(tour["shown"]) == len(SIGHTS) + 1  # and that its instances are ACTIVE
    assert tour["held"]
    assert child.returncode == 0, err.decode()
