"""A client of the API as the tests speak to it."""

import itertools
from typing import Any, Self

import httpx

Json = dict[str, Any]

_numbers = itertools.count(1)


def fresh(prefix: str) -> str:
    """A name that no other test uses."""
    return f"{prefix}-{next(_numbers)}"


def fresh_vtep() -> str:
    """An underlay address that no other test uses."""
    number = next(_numbers)
    return f"198.18.{number // 250}.{number % 250 + 1}"


class Api:
    """Speaks with one token. The short verbs return bodies and fail on errors."""

    def __init__(self, http: httpx.AsyncClient, token: str | None) -> None:
        self.http = http
        self.headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def with_token(self, token: str | None) -> Self:
        return type(self)(self.http, token)

    async def request(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **how: Any
    ) -> httpx.Response:
        """The reply, whatever it is."""
        return await self.http.request(
            method, f"/v1{path}", headers={**self.headers, **(headers or {})}, **how
        )

    async def post(self, path: str, body: Json, **how: Any) -> httpx.Response:
        return await self.request("POST", path, json=body, **how)

    async def make(self, path: str, **body: Any) -> Json:
        reply = await self.post(path, body)
        assert reply.status_code == 201, reply.text
        made: Json = reply.json()
        return made

    async def get(self, path: str, **params: Any) -> Json:
        reply = await self.request("GET", path, params=params)
        assert reply.status_code == 200, reply.text
        found: Json = reply.json()
        return found

    async def patch(self, path: str, body: Json, **how: Any) -> httpx.Response:
        return await self.request("PATCH", path, json=body, **how)

    async def delete(self, path: str, **how: Any) -> httpx.Response:
        return await self.request("DELETE", path, **how)

    # what most tests begin with; an operator's client

    async def project(self, **quotas: int) -> Json:
        return await self.make("/projects", name=fresh("project"), quotas=quotas)

    async def tenant(self, project: Json) -> Self:
        """A client with a token of the project."""
        token = await self.make("/tokens", name=fresh("token"), project_id=project["id"])
        return self.with_token(token["token"])

    async def host(self, capacity: int = 100_000) -> Json:
        return await self.make("/hosts", name=fresh("host"), vtep=fresh_vtep(), capacity=capacity)

    async def vpc(self, project: Json | None = None) -> Json:
        owner = {} if project is None else {"project_id": project["id"]}
        return await self.make("/vpcs", name=fresh("vpc"), **owner)

    async def subnet(self, vpc: Json, cidr: str = "10.0.0.0/24", **more: Any) -> Json:
        return await self.make("/subnets", vpc_id=vpc["id"], name=fresh("net"), cidr=cidr, **more)

    async def instance(self, subnet: Json, **more: Any) -> Json:
        return await self.make("/instances", **instance(subnet, **more))


def instance(subnet: Json, *, ip: str | None = None, **more: Any) -> Json:
    """The body of an instance with one vNIC in the subnet."""
    vnic = {"subnet_id": subnet["id"]} | ({} if ip is None else {"ip": ip})
    return {"name": fresh("i"), "vnics": [vnic], **more}


def only_error(reply: httpx.Response, status: int) -> Json:
    """The one field that a problem document names, after a look at the document itself."""
    problem = problem_of(reply, status)
    (error,) = problem["errors"]
    found: Json = error
    return found


def problem_of(reply: httpx.Response, status: int) -> Json:
    """A problem document of this status."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    problem: Json = reply.json()
    assert problem["status"] == status
    assert problem["type"].startswith("urn:achelous:problem:")
    assert problem["title"]
    assert problem["detail"]
    return problem
