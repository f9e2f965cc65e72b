"""Errors as problem documents (RFC 9457), one form for all of them."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from achelous_controller.api.models.common import FieldProblem, Problem, QuotaProblem, UserProblem
from achelous_controller.domain.errors import (
    Conflict,
    FieldError,
    Forbidden,
    InUse,
    Invalid,
    NoAnswer,
    NotFound,
    PreconditionFailed,
    QuotaExceeded,
    Refused,
    Unauthenticated,
    Unavailable,
)
from achelous_controller.store.failures import FAILURES, refusal

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 1
_VALUE_MAX: Final = 200
_ERRORS_MAX: Final = 100

_SOMETIMES: Final = ("users", "users_total", "quota")
"""Members of a problem that only some kinds have."""

_STATUS: Final[dict[type[Refused], HTTPStatus]] = {
    Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    Conflict: HTTPStatus.CONFLICT,
    InUse: HTTPStatus.CONFLICT,
    QuotaExceeded: HTTPStatus.CONFLICT,
    NotFound: HTTPStatus.NOT_FOUND,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    PreconditionFailed: HTTPStatus.PRECONDITION_FAILED,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    NoAnswer: HTTPStatus.GATEWAY_TIMEOUT,
}
_HEADERS: Final[dict[type[Refused], dict[str, str]]] = {
    Unauthenticated: {"WWW-Authenticate": 'Bearer realm="achelous"'},
    Unavailable: {"Retry-After": str(RETRY_AFTER_S)},
}


def respond(request: Request, error: Exception) -> Response:
    """The problem document of any exception; one that nobody foresaw is logged."""
    if isinstance(error, FAILURES):
        error = refusal(error) or error
    if isinstance(error, Refused):
        return _refused(request, error)
    if isinstance(error, RequestValidationError):
        return _refused(request, _invalid(error))
    if isinstance(error, HTTPException):
        status = HTTPStatus(error.status_code)
        detail = error.detail if error.detail != status.phrase else _detail(request, status)
        problem = _problem(request, status.phrase, status, detail)
        return _response(problem, error.headers)
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return _response(_problem(request, status.phrase, status, "the error is in the log"), {})


def shown(value: object) -> object:
    """A value as an error repeats it: whole if it is short."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _VALUE_MAX else f"{text[:_VALUE_MAX]}..."


def _refused(request: Request, error: Refused) -> Response:
    problem = _problem(request, error.title, _STATUS[type(error)], error.detail)
    problem.errors = [
        FieldProblem(field=e.field, value=shown(e.value), message=e.message)
        for e in error.errors[:_ERRORS_MAX]
    ]
    if isinstance(error, InUse):
        problem.users = [UserProblem(kind=u.kind, id=u.id, name=u.name) for u in error.users]
        problem.users_total = error.total
    if isinstance(error, QuotaExceeded):
        problem.quota = QuotaProblem(
            resource=error.resource,
            quota=error.quota,
            used=error.used,
            requested=error.requested,
        )
    return _response(problem, _HEADERS.get(type(error), {}))


def _invalid(error: RequestValidationError) -> Invalid:
    fields = [
        FieldError("body", error.body, _say(e))
        if e["type"] == "json_invalid"  # its location is a place in the text, its input is empty
        else FieldError(
            _field(e["loc"]), None if e["type"] == "missing" else e.get("input"), _say(e)
        )
        for e in error.errors()[:_ERRORS_MAX]
    ]
    more = f" (and {len(fields) - 1} more errors)" if len(fields) > 1 else ""
    return Invalid(f"{fields[0].field}: {fields[0].message}{more}", fields)


def _field(location: Sequence[str | int]) -> str:
    """('body', 'vnics', 0, 'ip') -> vnics[0].ip"""
    path = ""
    for part in location[1:]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path or str(location[0])


def _say(error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return f"it is no JSON from character {error['loc'][-1]} on: {error['ctx']['error']}"
    return str(error["msg"]).removeprefix("Value error, ")


def _detail(request: Request, status: HTTPStatus) -> str:
    if status is HTTPStatus.NOT_FOUND:
        return f"there is nothing at {request.url.path}: /docs lists what there is"
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        return f"{request.method} is not allowed here: the header Allow says what is"
    return status.description or status.phrase


def _problem(request: Request, title: str, status: HTTPStatus, detail: str) -> Problem:
    slug = title.lower().replace(" ", "-")
    return Problem(
        type=f"urn:achelous:problem:{slug}",
        title=title,
        status=status,
        detail=detail,
        instance=request.url.path,
    )


def _response(problem: Problem, headers: Mapping[str, str] | None) -> Response:
    absent = {name for name in _SOMETIMES if getattr(problem, name) is None}
    return Response(problem.model_dump_json(exclude=absent), problem.status, headers, MEDIA_TYPE)
