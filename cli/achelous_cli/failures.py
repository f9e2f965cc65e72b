"""Why a command ended without doing its work, as an exit code and an RFC 9457 problem document."""

import json
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

Document = Mapping[str, Any]
"""A JSON object as the API gave it."""


class ExitCode(IntEnum):
    """What scripts can rely on; `achelous --help` lists them."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    DROPPED = 5
    INTERRUPTED = 130


class Failure(Exception):
    """Ends the command. ``problem``: the API's document, or one of ours in the same form."""

    def __init__(self, code: ExitCode, problem: Document) -> None:
        super().__init__(problem.get("detail") or problem.get("title"))
        self.code, self.problem = code, problem

    def __str__(self) -> str:
        return text_of(self.problem)


def failure(code: ExitCode, title: str, detail: str, **members: object) -> Failure:
    """A failure that the API did not report; ``members``: extensions (RFC 9457, section 3.2)."""
    return Failure(code, {"type": "about:blank", "title": title, "detail": detail, **members})


def usage(detail: str) -> Failure:
    """Wrong options or settings."""
    return failure(ExitCode.USAGE, "Wrong usage", detail)


def refusal(status: int, problem: Document) -> Failure:
    """The failure for an HTTP status of 400 or more."""
    if status >= 500:
        return Failure(ExitCode.UNREACHABLE, problem)
    return Failure(ExitCode.NOT_FOUND if status == 404 else ExitCode.REFUSED, problem)


def text_of(problem: Document) -> str:
    """A problem for people: title and detail, then each field with its value and what is wrong."""
    title, detail = str(problem.get("title") or "Error"), str(problem.get("detail") or "")
    fields = [
        (f"{error.get('field')}: {error.get('message')}", f"  {_field(error)}")
        for error in problem.get("errors") or ()
    ]
    if fields and detail.startswith(fields[0][0]):
        detail = ""  # the lines below say it, with the value
    return "\n".join([f"{title}: {detail}" if detail else title, *(line for _, line in fields)])


def _field(error: Document) -> str:
    return f"{error.get('field')} = {json.dumps(error.get('value'))}: {error.get('message')}"
