"""Requests go to a controller that does not lead, if there is one: the leader has work of its own.

Which one that is, controllers say themselves in their metrics, as they would to an operator's
balancer. All requests go to one: divided over two, fewer changes would share a transaction.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from achelous_loadgen.http import Http

_LOOK_S: Final = 3.0
_LEADS: Final = b"\nprogramming_leader 1.0"
_FOLLOWS: Final = b"\nprogramming_leader 0.0"


async def choose(http: Http, urls: Sequence[str]) -> None:
    """Prefer the first that says that it does not lead; with one controller there is no choice."""
    if len(urls) < 2:
        return
    for url in urls:
        if _FOLLOWS in (await http.outside("/metrics", url) or b""):
            http.preferred = url
            return


def leads(metrics: bytes) -> bool:
    """Whether the controller that has these metrics says so."""
    return _LEADS in metrics


async def keep_off_the_leader(http: Http, urls: Callable[[], Sequence[str]]) -> None:
    """Choose again every few seconds, until cancelled: leaders change."""
    while True:
        await choose(http, urls())
        await asyncio.sleep(_LOOK_S)
