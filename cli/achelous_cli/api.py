"""The REST API as the commands use it: one reply, all pages, and refusals as failures."""

import uuid
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self

import httpx

from achelous_cli.connection import Connection
from achelous_cli.failures import ExitCode, Failure, failure, refusal
from achelous_cli.reply import Reply

TIMEOUT_S: Final = 60.0
"""For one reply; a batch of 20,000 instances takes seconds."""
CONNECT_TIMEOUT_S: Final = 5.0
PAGE_MAX: Final = 1000
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")

Params = Mapping[str, str]


class Api:
    """A connection to one API. Every method raises `Failure` for a refusal or a lost API."""

    def __init__(
        self, connection: Connection, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._connection = connection
        self._client = httpx.Client(
            base_url=connection.url,
            headers={"Authorization": f"Bearer {connection.token}"},
            timeout=httpx.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            transport=transport,
            # a proxy of the environment has no way to this machine's loopback
            trust_env=httpx.URL(connection.url).host not in _LOOPBACK,
            verify=connection.url.startswith("https:"),  # else 30 ms go into reading CAs
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._client.close()

    def get(self, path: str, params: Params | None = None) -> Reply:
        return self._send("GET", path, repeats=1, params=params)

    def post(self, path: str, body: Any) -> Reply:
        """Sent once more if the connection breaks before the reply: the key makes that safe."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return self._send("POST", path, repeats=1, json=body, headers=headers)

    def post_once(self, path: str, body: Any) -> Reply:
        """For what is answered with a secret, which the API does not keep for a repetition."""
        return self._send("POST", path, json=body)

    def patch(self, path: str, body: Any, if_match: str | None) -> Reply:
        headers = {} if if_match is None else {"If-Match": if_match}
        return self._send("PATCH", path, json=body, headers=headers)

    def delete(self, path: str) -> Reply:
        return self._send("DELETE", path)

    def pages(self, path: str, params: Params, limit: int | None) -> Iterator[Reply]:
        """Pages of a list, each asked for when it is wanted, until ``limit`` items or the end."""
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            asked = {**params, "limit": str(min(left or PAGE_MAX, PAGE_MAX))}
            reply = self.get(path, asked if cursor is None else {**asked, "cursor": cursor})
            yield reply
            cursor = reply.document["next"]
            if cursor is None:
                return
            left = None if left is None else left - len(reply.document["items"])

    def _send(self, method: str, path: str, repeats: int = 0, **options: Any) -> Reply:
        request = self._client.build_request(method, path, **options)
        try:
            response = self._response(request, repeats)
        except httpx.TimeoutException as error:
            raise self._lost(f"did not answer in time ({type(error).__name__})") from error
        except httpx.TransportError as error:
            raise self._lost(f"can not be reached: {error}") from error
        reply = _reply(response)
        if response.is_error:
            raise refusal(response.status_code, reply.document)
        return reply

    def _response(self, request: httpx.Request, repeats: int) -> httpx.Response:
        try:
            return self._client.send(request)
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            if not repeats:
                raise
            return self._response(request, repeats - 1)

    def _lost(self, what: str) -> Failure:
        return failure(
            ExitCode.UNREACHABLE,
            "No answer",
            f"the API at {self._connection.url} (from {self._connection.origin}) {what}",
        )


def _reply(response: httpx.Response) -> Reply:
    """Raises `Failure` if something else than the API answered."""
    if response.status_code == httpx.codes.NO_CONTENT:
        return Reply("", {})
    try:
        found = response.json()
    except ValueError:
        found = None
    if isinstance(found, dict) and (response.is_success or "title" in found):
        return Reply(response.text, found)
    raise failure(
        ExitCode.UNREACHABLE,
        "No API",
        f"{response.request.url} answered {response.status_code} with {response.text[:80]!r}: does"
        " the URL name an Achelous API?",
    )
