"""Replies that a real server gives rarely: pages, broken connections, pages of others."""

from collections.abc import Callable

import httpx
import pytest

from achelous_cli.api import Api
from achelous_cli.connection import Connection
from achelous_cli.failures import ExitCode, Failure

Handler = Callable[[httpx.Request], httpx.Response]


def _api(handler: Handler) -> Api:
    return Api(Connection("http://127.0.0.1:1", "a test", "t"), httpx.MockTransport(handler))


def _numbers(requests: list[httpx.Request]) -> Handler:
    """A list of 2,500 numbers."""

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        start = int(request.url.params.get("cursor", "0"))
        end = min(start + int(request.url.params["limit"]), 2500)
        following = str(end) if end < 2500 else None
        return httpx.Response(200, json={"items": list(range(start, end)), "next": following})

    return answer


def test_pages_are_asked_for_as_they_are_wanted() -> None:
    requests: list[httpx.Request] = []
    pages = _api(_numbers(requests)).pages("/v1/x", {}, None)
    next(pages)
    assert len(requests) == 1
    assert sum(len(page.document["items"]) for page in pages) == 1500
    assert len(requests) == 3


def test_a_limit_is_not_exceeded() -> None:
    requests: list[httpx.Request] = []
    pages = list(_api(_numbers(requests)).pages("/v1/x", {"name": "n"}, 1200))
    assert [len(page.document["items"]) for page in pages] == [1000, 200]
    assert {request.url.params["name"] for request in requests} == {"n"}


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, 1), (401, 1), (403, 1), (404, 3), (409, 1), (412, 1), (422, 1), (500, 4), (503, 4)],
)
def test_each_kind_of_status_has_its_exit_code(status: int, code: int) -> None:
    with pytest.raises(Failure, match="Title: why") as caught:
        _api(lambda _: httpx.Response(status, json={"title": "Title", "detail": "why"})).get("/")
    assert caught.value.code == code


def test_each_wrong_field_is_shown_with_its_value() -> None:
    errors = [
        {"field": "cidr", "value": "10/8", "message": "no network"},
        {"field": "vnics[0].ip", "value": None, "message": "missing"},
    ]
    problem = {"title": "Invalid", "detail": "cidr: no network (and 1 more)", "errors": errors}
    with pytest.raises(Failure) as caught:
        _api(lambda _: httpx.Response(422, json=problem)).get("/")
    assert str(caught.value).splitlines() == [
        "Invalid",
        '  cidr = "10/8": no network',
        "  vnics[0].ip = null: missing",
    ]
    assert caught.value.problem == problem


@pytest.mark.parametrize("status", [200, 302, 404, 502])
def test_what_is_no_api_is_not_taken_for_one(status: int) -> None:
    pages = _api(lambda _: httpx.Response(status, html="<html>")).pages("/v1/vpcs", {}, None)
    with pytest.raises(Failure, match="does the URL name an Achelous API") as caught:
        list(pages)
    assert caught.value.code is ExitCode.UNREACHABLE


def _breaking(requests: list[httpx.Request], times: int) -> Handler:
    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        if len(requests) <= times:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        return httpx.Response(201, json={})

    return answer


def test_a_creation_cut_off_is_sent_again_with_the_same_key() -> None:
    requests: list[httpx.Request] = []
    assert _api(_breaking(requests, 1)).post("/v1/vpcs", {}).text == "{}"
    assert len({request.headers["Idempotency-Key"] for request in requests}) == 1
    assert len(requests) == 2


@pytest.mark.parametrize("method", ["delete", "post_once"])
def test_what_can_not_be_repeated_safely_is_not(method: str) -> None:
    requests: list[httpx.Request] = []
    api = _api(_breaking(requests, 1))
    with pytest.raises(Failure, match="can not be reached: Server disconnected") as caught:
        api.delete("/v1/x") if method == "delete" else api.post_once("/v1/tokens", {})
    assert caught.value.code is ExitCode.UNREACHABLE
    assert len(requests) == 1


def test_an_api_that_does_not_answer_in_time_is_named() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("")

    with pytest.raises(Failure, match=r"http://127.0.0.1:1 \(from a test\) did not answer in time"):
        _api(answer).get("/")
