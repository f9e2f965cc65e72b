"""What a threshold of packets before learning costs and saves, on traffic with a heavy tail.

`PYTHONPATH=tests .venv/bin/python -m scale.measure_learning`. A model, not a measurement of
a machine: conversations of Pareto distributed lengths, each with a destination of its own.
"""

import argparse
import sys
from typing import Final

import msgspec
import numpy as np

_CONVERSATIONS: Final = 2_000_000
_LONGEST: Final = 1_000_000
_IN_FLIGHT: Final = 2
"""Packets relayed while the route is asked for."""


def shares(index: float, thresholds: list[int]) -> list[dict[str, float]]:
    """For each threshold: the share of packets relayed, of destinations learned."""
    uniform = np.random.default_rng(1).random(_CONVERSATIONS)
    packets = np.minimum(uniform ** (-1 / index), _LONGEST).astype(np.int64)
    total = packets.sum()
    return [
        {
            "packets": threshold,
            "relay_share": float(np.minimum(packets, threshold + _IN_FLIGHT).sum() / total),
            "learned": float((packets >= threshold).mean()),
        }
        for threshold in thresholds
    ]


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description="Relay share against entries.")
    parser.add_argument("--index", type=float, default=1.1, help="of the Pareto distribution")
    found = shares(parser.parse_args().index, [1, 2, 3, 5, 10, 100])
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n")


if __name__ == "__main__":
    main()
