"""Well-formed creations and deletions pass FastAPI by, and nobody can tell.

A content type with a parameter is as good to a route as one without, but not plain enough for the
short way: the same request goes both ways.
"""

from collections.abc import Mapping
from datetime import UTC
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from api.client import Api, Json, fresh, instance
from api.conftest import Controller
from hypothesis import given
from hypothesis import strategies as st

from achelous_controller.api.models import instances as models
from achelous_controller.api.rendering import instance_view, json_of
from achelous_controller.domain.instance_state import InstanceState
from achelous_controller.domain.instances import Instance, Kind, Vnic

SHORT, LONG = "application/json", "application/json; charset=utf-8"


async def both(api: Api, path: str, body: bytes, headers: Mapping[str, Any] | None = None) -> Any:
    """The replies to the same request, by the short way and by the route."""
    return [
        await api.request(
            "POST", path, content=body, headers={**(headers or {}), "Content-Type": kind}
        )
        for kind in (SHORT, LONG)
    ]


@pytest.fixture
async def subnet(operator: Api, tenant: Api) -> Json:
    await operator.host()
    return await tenant.subnet(await tenant.vpc(), "10.0.0.0/16", cidr6="fd00:1::/64")


def encoded(body: object) -> bytes:
    return msgspec.json.encode(body)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"kind": "container", "project_id": None, "host_id": None},
        {"vnics": 3},
        {"ip": None, "ip6": None, "security_group_ids": []},
    ],
)
async def test_both_ways_make_the_same(tenant: Api, subnet: Json, more: Json) -> None:
    vnic = {"subnet_id": subnet["id"].upper()}
    vnic |= {key: more[key] for key in ("ip", "ip6", "security_group_ids") if key in more}
    body = {"name": fresh("i"), "vnics": [vnic] * more.get("vnics", 1)}
    body |= {key: more[key] for key in ("kind", "project_id", "host_id") if key in more}

    short, long = await both(tenant, "/instances", encoded(body))
    batches = await both(tenant, "/instances:batch", encoded({"instances": [body, body]}))

    assert [reply.status_code for reply in (short, long, *batches)] == [201] * 4
    assert short.headers.keys() == long.headers.keys()
    assert shape(short.json()) == shape(long.json())
    assert shape(batches[0].json()) == shape(batches[1].json())


def shape(value: Any) -> Any:
    """A reply without what differs from instance to instance."""
    if isinstance(value, dict):
        return {key: shape(part) for key, part in value.items() if key not in ("ip", "ip6", "mac")}
    if isinstance(value, list):
        return [shape(part) for part in value]
    return len(value) if isinstance(value, str) and value[-1:].isalnum() else type(value)


WRONG = [
    b"",
    b"{",
    b"[]",
    b"\xff",
    b'{"name": "a", "vnics": []}',
    b'{"name": "a\\n", "vnics": [{"subnet_id": "%s"}]}',
    b'{"name": "a", "vnics": [{"subnet_id": "%s", "ip": "10.0.0"}]}',
    b'{"name": "a", "vnics": [{"subnet_id": "%s", "ip": "fd00:1::7"}]}',
    b'{"name": "a", "vnics": [{"subnet_id": "%s", "ip6": 7}]}',
    b'{"name": "a", "vnics": [{"subnet_id": "%s", "mac": "02:00:00:00:00:01"}]}',
    b'{"name": "a", "vnics": [{"subnet_id": "%s"}], "kind": "robot"}',
    b'{"name": "a", "vnics": [{"subnet_id": "%s"}], "color": "red"}',
    b'{"name": "a", "vnics": [{"subnet_id": "%s"}], "kind": null}',
    b'{"name": "a", "vnics": [{"subnet_id": "nowhere"}]}',
]


@pytest.mark.parametrize("body", WRONG)
async def test_both_ways_refuse_with_the_same_words(tenant: Api, subnet: Json, body: bytes) -> None:
    body = body.replace(b"%s", subnet["id"].encode())

    for path, sent in (
        ("/instances", body),
        ("/instances:batch", b'{"instances": [%b]}' % body),
    ):
        short, long = await both(tenant, path, sent)
        assert short.status_code == long.status_code >= 400
        assert short.json() == long.json()


@pytest.mark.parametrize("key", [b"", b"a b", b"x" * 256, b"\xe4"])
async def test_a_key_that_is_none_is_refused_with_the_same_words(
    tenant: Api, subnet: Json, key: bytes
) -> None:
    headers = {"Idempotency-Key": key}

    short, long = await both(tenant, "/instances", encoded(instance(subnet)), headers)

    assert short.status_code == long.status_code == 422
    assert short.json() == long.json()


async def test_what_one_way_made_the_other_repeats(tenant: Api, subnet: Json) -> None:
    key = {"Idempotency-Key": fresh("key")}

    short, long = await both(tenant, "/instances", encoded(instance(subnet)), key)

    assert short.content == long.content
    assert short.headers["location"] == long.headers["location"]
    assert len((await tenant.get("/instances"))["items"]) == 1


async def test_both_ways_move_alike(operator: Api, subnet: Json) -> None:
    hosts = [await operator.host() for _ in range(2)]
    made = await operator.instance(subnet, host_id=hosts[0]["id"])
    path = f"/instances/{made['id']}"

    async def patched(kind: str, body: bytes, **headers: str) -> Any:
        more = headers | {"Content-Type": kind}
        return await operator.request("PATCH", path, content=body, headers=more)

    for number, kind in enumerate((LONG, SHORT)):
        host = hosts[1 - number]["id"]
        reply = await patched(kind, encoded({"host_id": host}), **{"If-Match": f'"{number + 1}"'})
        assert (reply.status_code, reply.json()["host_id"]) == (200, host)
        assert reply.headers["etag"] == f'"{number + 2}"'
    for body in (b'{"host_id": "%s"}' % str(uuid4()).encode(), b'{"host_id": 7}', b"{", b"[]"):
        short, long = [await patched(kind, body) for kind in (SHORT, LONG)]
        assert short.status_code == long.status_code == 422
        assert short.json() == long.json()


async def test_a_path_that_only_looks_like_an_instance_s_is_none(tenant: Api, subnet: Json) -> None:
    made = await tenant.instance(subnet)

    reply = await tenant.delete(f"/instancesX{made['id']}")

    assert reply.status_code == 404
    assert (await tenant.get(f"/instances/{made['id']}"))["state"] == "BUILDING"


async def test_a_header_that_is_there_twice_is_the_route_s_to_judge(
    controller: Controller, tenant: Api, subnet: Json
) -> None:
    headers = [*tenant.headers.items(), ("Accept", "text/html"), ("Accept", "application/json")]

    reply = await tenant.http.post("/v1/instances", json=instance(subnet), headers=headers)

    assert reply.status_code == 201


@pytest.mark.parametrize(
    "name",
    ["not-an-id", str(uuid4()), str(uuid4()).replace("-", "")],
    ids=["no UUID", "a UUID", "without hyphens"],
)
async def test_deleting_what_is_not_there(tenant: Api, name: str) -> None:
    reply = await tenant.delete(f"/instances/{name}")

    assert reply.status_code == (422 if name == "not-an-id" else 404)


async def test_a_route_is_counted_under_its_name(
    controller: Controller, tenant: Api, subnet: Json
) -> None:
    made = await tenant.instance(subnet)
    await tenant.delete(f"/instances/{made['id']}")

    metrics = (await tenant.http.get("/metrics")).text

    counted = 'http_requests_total{method="%s",route="%s",status="%d"}'
    assert counted % ("POST", "/v1/instances", 201) in metrics
    assert counted % ("DELETE", "/v1/instances/{instance_id}", 202) in metrics


times = st.datetimes(timezones=st.just(UTC))
vnics = st.builds(
    Vnic,
    *(st.uuids() for _ in range(6)),
    st.integers(0, 7),
    st.ip_addresses(v=4),
    st.none() | st.ip_addresses(v=6),
    st.integers(0, 2**48 - 1),
    st.lists(st.uuids(), max_size=3).map(tuple),
    st.integers(1, 2**31 - 1),
)
made = st.builds(
    Instance,
    st.uuids(),
    st.uuids(),
    st.text(min_size=1, max_size=9),
    st.sampled_from(Kind),
    st.uuids(),
    st.sampled_from(InstanceState),
    st.none() | st.text(max_size=9),
    times,
    *(st.none() | times for _ in range(5)),
    times,
    st.integers(1, 2**31 - 1),
    st.lists(vnics, max_size=2).map(tuple),
)


@given(made, st.booleans())
def test_an_instance_is_rendered_as_its_model_describes_it(one: Instance, operator: bool) -> None:
    rendered = json_of(instance_view(one, show_host=operator))

    model = models.Instance.model_validate_json(rendered)

    assert msgspec.json.decode(model.model_dump_json()) == msgspec.json.decode(rendered)
    assert model.host_id == (one.host_id if operator else None)
    assert [vnic.ip6 for vnic in model.vnics] == [vnic.ip6 for vnic in one.vnics]
