"""One way to wait: a condition and a deadline, never a bare sleep."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable


async def wait_until(
    condition: Callable[[], bool | Awaitable[bool]],
    what: str | Callable[[], str],
    *,
    timeout: float = 10.0,
    interval: float = 0.02,
) -> float:
    """Wait until `condition()` is true; returns how long that took, in seconds.

    `what` completes the sentence "waited N s for ..." of the TimeoutError; a callable is asked
    for it at the end, when the last state is known. The condition is tried at least twice.
    """
    started = time.monotonic()
    while True:
        late = time.monotonic() - started > timeout
        outcome = condition()
        if await outcome if inspect.isawaitable(outcome) else outcome:
            return time.monotonic() - started
        if late:
            raise TimeoutError(
                f"waited {timeout:g} s for {what if isinstance(what, str) else what()}"
            )
        await asyncio.sleep(interval)
