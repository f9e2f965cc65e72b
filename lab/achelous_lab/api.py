"""A client of the REST API for the lab, the tour and the tests: thin, typed where it pays."""

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import httpx

from achelous_lab.waiting import wait_until

Object = dict[str, Any]
"""An object as the API gives it."""

_TIMEOUT_S: Final = 30.0
_IDLE_S: Final = 2.0
"""A connection is not used again after this: controllers close theirs after 5 s."""


class ApiRefused(RuntimeError):
    """An answer of 400 or above; `problem` is its problem+json (RFC 9457)."""

    def __init__(self, method: str, path: str, status: int, problem: Object) -> None:
        self.status, self.problem = status, problem
        super().__init__(f"{method} {path}: {status} {problem.get('detail', problem)}")


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as the API takes it; `remote_group_id` stands instead of `remote`."""

    direction: str = "ingress"
    protocol: str = "any"
    port_min: int | None = None
    port_max: int | None = None
    remote: str = "0.0.0.0/0"
    remote_group_id: str | None = None
    action: str = "allow"
    priority: int | None = None

    def body(self) -> Object:
        """Without the fields that were left out."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        if self.remote_group_id is not None:
            del fields["remote"]
        return {name: value for name, value in fields.items() if value is not None}


class Api:
    """One token's view of the controllers: the next is tried when one is gone.

    `addresses` is asked anew for each call, as a controller that restarts may listen elsewhere.
    """

    def __init__(self, addresses: Callable[[], list[str]], token: str) -> None:
        self._addresses = addresses
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {token}"},
            timeout=_TIMEOUT_S,
            limits=httpx.Limits(keepalive_expiry=_IDLE_S),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def call(
        self, method: str, path: str, body: Object | None = None, **options: Any
    ) -> Object:
        """The answer's JSON, {} if it has none. Raises ApiRefused, httpx.HTTPError."""
        failed = httpx.ConnectError("no controller listens")
        for address in self._addresses():
            try:
                answer = await self._http.request(
                    method, f"http://{address}/v1{path}", json=body, **options
                )
                break
            except httpx.ConnectError as error:
                failed = error
        else:
            raise failed
        content: Object = answer.json() if answer.content else {}
        if answer.is_error:
            raise ApiRefused(method, path, answer.status_code, content)
        return content

    async def post(self, path: str, body: Object) -> Object:
        return await self.call("POST", path, body)

    async def get(self, path: str, **query: Any) -> Object:
        return await self.call("GET", path, params=query)

    async def patch(self, path: str, body: Object) -> Object:
        return await self.call("PATCH", path, body)

    async def delete(self, path: str) -> Object:
        return await self.call("DELETE", path)

    async def wait_active(self, instance_id: str, timeout: float = 20.0) -> Object:
        """The instance, once it is ACTIVE. The TimeoutError says its state and reason."""
        return await self._wait_state(instance_id, "ACTIVE", timeout)

    async def _wait_state(self, instance_id: str, state: str, timeout: float) -> Object:
        seen: Object = {}

        async def reached() -> bool:
            seen.update(await self.get(f"/instances/{instance_id}"))
            return bool(seen["state"] == state)

        await wait_until(
            reached,
            lambda: f"instance {seen['name']} to be {state}: {seen['state']}, {seen['reason']}",
            timeout=timeout,
        )
        return seen

    async def wait_gone(self, path: str, timeout: float = 20.0) -> float:
        """Wait until GET says 404; returns after how many seconds."""

        async def gone() -> bool:
            try:
                await self.get(path)
            except ApiRefused as refused:
                return refused.status == 404
            return False

        return await wait_until(gone, f"{path} to be gone", timeout=timeout)
