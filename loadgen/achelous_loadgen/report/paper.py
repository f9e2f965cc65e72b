"""The paper's own figures (SIGCOMM 2023), to be drawn beside ours."""

from typing import Final

_SIZES: Final = (10, 100, 1_000, 10_000, 100_000, 1_000_000)

PROGRAMMING_S: Final = {
    "alm": dict(zip(_SIZES, (1.03, 1.04, 1.04, 1.26, 1.26, 1.33), strict=True)),
    "preprogrammed": dict(zip(_SIZES, (2.61, 2.66, 3.16, 3.51, 9.80, 28.5), strict=True)),
}
"""Figure 10: programming time in seconds by instances of the VPC."""

RSP_SHARES: Final = (0.034, 0.032, 0.009, 0.007, 0.001)
"""Figure 11: RSP's part of the traffic, by region."""

FC_ENTRIES: Final = {"mean": 1_900.0, "p90": 3_900.0, "p99": 16_300.0, "max": 37_700.0}
"""Figure 12: entries of a vSwitch's forwarding cache."""

FC_CDF: Final = ((3_900.0, 0.9), (16_300.0, 0.99), (37_700.0, 1.0))
"""The same as points of its distribution: entries and part of the vSwitches."""

MEMORY_SAVED: Final = 0.95
