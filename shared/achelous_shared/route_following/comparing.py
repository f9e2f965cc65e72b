"""Comparing with the controller's revisions, now and then and whenever there is reason to."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from achelous_shared.bus import BusError
from achelous_shared.messages import BadMessage
from achelous_shared.route_following.revisions import NotInStep
from achelous_shared.routes import MalformedTable

log = logging.getLogger(__name__)

COMPARE_S: Final = 30.0
"""From one comparison to the next, if nothing calls for one."""
_RETRY_S: Final = 0.5


async def compare_forever(compare: Callable[[], Awaitable[None]], due: asyncio.Event) -> None:
    """Until cancelled. ``compare`` runs again at once when ``due`` is set, and soon if it raises
    `BusError`, `BadMessage`, `MalformedTable` or `NotInStep`."""
    while True:
        due.clear()
        pause = COMPARE_S
        try:
            await compare()
        except (BusError, BadMessage, MalformedTable, NotInStep) as error:
            log.warning("comparing revisions, to be tried again: %s", error)
            pause = _RETRY_S
        try:
            async with asyncio.timeout(pause):
                await due.wait()
        except TimeoutError:
            pass
