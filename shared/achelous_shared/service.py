"""Runs a service: uvloop and one main task, which SIGTERM and SIGINT cancel with all it owns."""

import asyncio
import logging
import signal
from collections.abc import Coroutine
from typing import Any

import uvloop

log = logging.getLogger(__name__)


def run(main: Coroutine[Any, Any, None]) -> int:
    """Run ``main`` to its end. Exit code: 0 when it ended or was asked to, 1 when it failed."""
    try:
        uvloop.run(_until_signal(main))
    except asyncio.CancelledError:
        return 0
    except Exception:
        log.exception("the service failed")
        return 1
    return 0


async def _until_signal(main: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(main)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    await task
