"""Waiting until an instance is what it shall become, with a sign of life on standard error."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from achelous_cli.failures import Document, ExitCode, Failure, failure
from achelous_cli.reply import Reply

if TYPE_CHECKING:
    from achelous_cli.session import Session

_INTERVAL_S: Final = 0.05
_INTERVAL_MAX_S: Final = 1.0


def until_active(session: "Session", instance: Document, timeout: float) -> Reply:
    """The reply that shows it ACTIVE; raises `Failure` when it is in ERROR or after ``timeout``."""
    with _sign_of_life(f"instance {instance['name']} ({instance['id']}) is being built"):
        for reply in _looks(session, instance, timeout, "ACTIVE"):
            now = reply.document
            if now["state"] == "ACTIVE":
                return reply
            if now["state"] == "ERROR":
                raise failure(
                    ExitCode.REFUSED,
                    "Instance in ERROR",
                    f"instance {now['name']} ({now['id']}): {now['reason']}",
                    instance=f"/v1/instances/{now['id']}",
                )
    raise AssertionError("looks end by a return or a failure")


def until_gone(session: "Session", instance: Document, timeout: float) -> None:
    """Return when the API knows the instance no more; raises `Failure` after ``timeout``."""
    with _sign_of_life(f"instance {instance['name']} ({instance['id']}) is being deleted"):
        try:
            for _ in _looks(session, instance, timeout, "gone"):
                pass
        except Failure as error:
            if error.code is not ExitCode.NOT_FOUND:
                raise


def _looks(session: "Session", instance: Document, timeout: float, wanted: str) -> Iterator[Reply]:
    """The instance again and again, less often as time goes by; an API that restarts is awaited."""
    deadline = time.monotonic() + timeout
    interval = _INTERVAL_S
    while True:
        state = "not known: the API does not answer"
        try:
            reply = session.api.get(f"/v1/instances/{instance['id']}")
        except Failure as error:
            if error.code is not ExitCode.UNREACHABLE:
                raise
        else:
            yield reply
            state = reply.document["state"]
        if time.monotonic() + interval > deadline:
            raise failure(
                ExitCode.UNREACHABLE,
                "Took too long",
                f"instance {instance['name']} ({instance['id']}) is not {wanted} after"
                f" {timeout:g} s; its state is {state}",
            )
        time.sleep(interval)
        interval = min(interval * 1.5, _INTERVAL_MAX_S)


@contextmanager
def _sign_of_life(what: str) -> Iterator[None]:
    """A spinner on a terminal, one line elsewhere: an interrupted wait has told the id."""
    if not sys.stderr.isatty():
        sys.stderr.write(f"{what}\n")
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield
