"""The load generator against a platform of its own: every figure is there, and true to itself."""

import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from achelous_lab.process import Completed, run

_LIMIT_S = 580.0
pytestmark = pytest.mark.timeout(600)

SMALL = ("--quick", "--largest", "20")


async def _loadgen(*words: str) -> Completed:
    command = [sys.executable, "-c", "from achelous_cli.main import main; main()", "loadgen"]
    return await run([*command, *words], timeout=_LIMIT_S, check=False)


@pytest.fixture(scope="module")
async def figures(objects: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of one full run in small."""
    assert os.environ["ACHELOUS_BPF_DIR"]  # simulated hosts have the layouts of the objects
    file = tmp_path_factory.mktemp("loadgen") / "figures.json"
    done = await _loadgen("full", *SMALL, "--json", str(file))
    assert done.status == 0, done.stderr.decode()
    found: dict[str, Any] = msgspec.json.decode(file.read_bytes())
    return found


def test_programming_time_is_given_for_each_size_of_a_vpc(figures: dict[str, Any]) -> None:
    assert figures["programming_time"].keys() == {"alm", "preprogrammed"}
    for by_size in figures["programming_time"].values():
        assert list(by_size) == ["10", "20"]
        assert all(0 < one["p50_ms"] <= one["p99_ms"] for one in by_size.values())
    assert "programming_time_stopped" not in figures  # so small, all fits


def test_every_container_of_a_burst_is_reachable(figures: dict[str, Any]) -> None:
    burst = figures["burst"]

    assert burst["instances"] == 500
    assert burst["last_reachable_s"] >= max(burst["api_s"], burst["gateways_s"])


def test_churn_loses_nothing(figures: dict[str, Any]) -> None:
    churn = figures["churn"]

    assert churn["lost"] == churn["refused"] == 0
    assert churn["moves"] > 0
    assert churn["freshness_samples"] > 0
    assert churn["cpu_ms_per_change"]["loadgen"] > 0
    assert 0 < churn["p50_ms"] <= churn["p99_ms"]


def test_hosts_learn_and_asking_for_changes_is_cheaper_than_for_entries(
    figures: dict[str, Any],
) -> None:
    reconcile, learning = figures["reconcile"], figures["learning"]

    assert reconcile["entries"] == 20
    assert 0 < reconcile["delta_bytes_per_s"] < reconcile["per_entry_bytes_per_s"]
    assert 0 < learning["fc_entries"]["mean"] <= learning["fc_entries"]["max"] <= 20
    assert 0 < learning["rsp_share"] < 1


def test_after_each_fault_everything_agrees_with_the_database(figures: dict[str, Any]) -> None:
    assert figures["faults"].keys() == {
        "gateway-stopped", "gateway-killed", "nats-restarted", "postgres-restarted",
        "leader-killed", "messages",
    }  # fmt: skip
    assert all(fault["wrong"] == 0 for fault in figures["faults"].values())


def test_services_are_measured(figures: dict[str, Any]) -> None:
    assert figures["gateway"]["routes"] == 20
    assert figures["gateway"]["lookups_per_s"] > 0
    relay = figures["gateway"]["with_relay"]
    assert relay["cold_start_s"] == figures["gateway"]["cold_start_with_relay_s"] > 0
    assert relay["delta_entries"] == 500
    assert relay["deltas"] == 0 or 0 < relay["delta_p50_ms"] <= relay["delta_p99_ms"]
    controller = figures["controller"]
    assert controller["single_changes_per_s"] > 0
    assert controller["load_1500000_s"] is None
    assert controller["load"]["cpu_s"]["postgres"] >= 0  # twenty take less than is counted
    lists = {"all", "all, deep", "name", "host", "later VPC", "vNICs of the subnet, deep"}
    assert controller["list_p99_ms"].keys() >= lists
    assert 0 < controller["allocation_ms"]["statement"] < controller["allocation_ms"]["given_p50"]
    assert {"controller1", "g1", "g2", "nats", "postgres"} <= figures["services"].keys()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("faults", "--attach"), b"without --attach"),
        (("burst", "--json", "/nowhere/figures.json"), b"/nowhere/figures.json cannot be written"),
        (("burst", "--attach"), b"no API is known"),
        (("burst", "--largest", "9"), b"--largest"),
        (("churn", "--rate", "0"), b"--rate"),
    ],
)
async def test_wrong_words_are_refused_at_once(
    words: tuple[str, ...], said: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))  # where no platform is announced
    done = await _loadgen(*words)

    assert done.status == 2
    assert said in done.stderr
