"""IPv6 beside IPv4: subnets, vNICs, and what programming makes of them."""

import asyncio
from ipaddress import IPv6Address
from uuid import UUID

import pytest
from api.client import Api, Json, fresh, instance, only_error
from api.conftest import Controller
from api.documents import read_whole, snapshot

from achelous_controller.programming import outbox
from achelous_controller.programming.route_pages import read_page
from achelous_shared.messages import Port
from achelous_shared.routes import ip_bytes, ip_of, unpack

CIDR6 = "2001:db8:1::/64"


@pytest.fixture
async def host(operator: Api) -> Json:
    return await operator.host()


@pytest.fixture
async def subnet(tenant: Api, host: Json) -> Json:
    """With both families, and a host that has room."""
    return await tenant.subnet(await tenant.vpc(), cidr6=CIDR6)


def ip6s(*instances: Json) -> list[str]:
    return [vnic["ip6"] for made in instances for vnic in made["vnics"]]


def wanted(subnet: Json, ip6: str | None = None) -> Json:
    vnic = {"subnet_id": subnet["id"]} | ({} if ip6 is None else {"ip6": ip6})
    return {"name": fresh("i"), "vnics": [vnic]}


# ---- subnets -------------------------------------------------------------------------------------


async def test_a_subnet_has_ipv6_if_it_is_asked_for(tenant: Api) -> None:
    vpc = await tenant.vpc()
    dns = ["10.0.0.53", "2001:db8:1::53"]

    plain = await tenant.subnet(vpc, "10.0.0.0/24")
    dual = await tenant.subnet(vpc, "10.0.1.0/24", cidr6=CIDR6, dns_servers=dns, dhcp_lease_s=120)

    assert (plain["cidr6"], plain["gateway_ip6"]) == (None, None)
    assert (plain["dns_servers"], plain["dhcp_lease_s"]) == ([], 3600)
    assert (dual["cidr6"], dual["gateway_ip6"]) == (CIDR6, "2001:db8:1::1")
    assert (dual["dns_servers"], dual["dhcp_lease_s"]) == (dns, 120)
    assert await tenant.get(f"/subnets/{dual['id']}") == dual


@pytest.mark.parametrize(
    ("wrong", "field", "hint"),
    [
        ({"cidr6": "2001:db8::1/64"}, "cidr6", "the network is 2001:db8::/64"),
        ({"cidr6": "2001:db8::/63"}, "cidr6", "a /64 to /126"),
        ({"cidr6": "2001:db8::/127"}, "cidr6", "a /64 to /126"),
        ({"cidr6": "fe80::/64"}, "cidr6", "not for guests"),
        ({"cidr6": "::ffff:10.0.0.0/120"}, "cidr6", "not for guests"),
        ({"cidr6": "10.0.1.0/24"}, "cidr6", "is IPv4"),
        ({"cidr6": "nonsense"}, "cidr6", "as in"),
        ({"cidr6": CIDR6, "gateway_ip6": "2001:db8:1::"}, "gateway_ip6", "2001:db8:1::1 to"),
        ({"cidr6": CIDR6, "gateway_ip6": "2001:db8:2::1"}, "gateway_ip6", "none of"),
        ({"cidr6": CIDR6, "gateway_ip6": "10.0.0.1"}, "gateway_ip6", "is IPv4"),
        ({"gateway_ip6": "2001:db8:1::1"}, "gateway_ip6", "no IPv6 network"),
        ({"dns_servers": ["10.0.0.1"] * 5}, "dns_servers", "at most 4"),
        ({"dns_servers": ["resolver"]}, "dns_servers[0]", "as in"),
        ({"dhcp_lease_s": 59}, "dhcp_lease_s", "60"),
        ({"dhcp_lease_s": 604_801}, "dhcp_lease_s", "604800"),
    ],
)
async def test_a_wrong_value_is_refused_with_a_hint(
    tenant: Api, wrong: Json, field: str, hint: str
) -> None:
    vpc = await tenant.vpc()
    body = {"vpc_id": vpc["id"], "name": "n", "cidr": "10.0.0.0/24"}

    error = only_error(await tenant.post("/subnets", body | wrong), 422)

    assert error["field"] == field
    assert hint in error["message"]


async def test_ipv6_networks_of_a_vpc_do_not_overlap_and_those_of_two_may(tenant: Api) -> None:
    vpc, other = await tenant.vpc(), await tenant.vpc()
    first = await tenant.subnet(vpc, "10.0.0.0/24", cidr6=CIDR6)
    await tenant.subnet(other, "10.0.0.0/24", cidr6=CIDR6)

    for cidr6 in (CIDR6, "2001:db8:1::8000/113"):
        body = {"vpc_id": vpc["id"], "name": fresh("n"), "cidr": "10.0.9.0/24", "cidr6": cidr6}
        error = only_error(await tenant.post("/subnets", body), 409)
        assert error["field"] == "cidr6"
        assert first["id"] in error["message"]
    await tenant.subnet(vpc, "10.0.9.0/24", cidr6="2001:db8:2::/64")


# ---- vNICs ---------------------------------------------------------------------------------------


async def test_a_vnic_has_ipv6_if_its_subnet_has(tenant: Api, subnet: Json) -> None:
    plain = await tenant.subnet(await tenant.vpc())

    assert ip6s(await tenant.instance(plain)) == [None]
    assert ip6s(await tenant.instance(subnet)) == ["2001:db8:1::2"]
    given = await tenant.make("/instances", **wanted(subnet, "2001:db8:1:0:ffff:ffff:ffff:ffff"))
    assert ip6s(given) == ["2001:db8:1:0:ffff:ffff:ffff:ffff"]
    found = await tenant.get("/vnics", ip6=ip6s(given)[0])
    assert [vnic["id"] for vnic in found["items"]] == [given["vnics"][0]["id"]]


@pytest.mark.parametrize(
    ("ip6", "status", "hint"),
    [
        ("2001:db8:1::", 422, "subnet-router anycast"),
        ("2001:db8:1::1", 422, "router's address"),
        ("2001:db8:2::2", 422, "not in the subnet"),
        ("10.0.0.9", 422, "is IPv4"),
        ("2001:db8:1::g", 422, "as in"),
        ("2001:db8:1::5", 409, "another vNIC's"),
    ],
)
async def test_a_wrong_ipv6_address_is_refused(
    tenant: Api, subnet: Json, ip6: str, status: int, hint: str
) -> None:
    await tenant.make("/instances", **wanted(subnet, "2001:db8:1::5"))

    error = only_error(await tenant.post("/instances", wanted(subnet, ip6)), status)

    assert error["field"] == "vnics[0].ip6"
    assert hint in error["message"]


async def test_an_ipv6_address_needs_a_subnet_with_ipv6(tenant: Api, host: Json) -> None:
    plain = await tenant.subnet(await tenant.vpc())

    error = only_error(await tenant.post("/instances", wanted(plain, "2001:db8:1::5")), 422)

    assert "no IPv6 network" in error["message"]


async def test_one_address_for_two_vnics_of_a_batch_is_refused(tenant: Api, subnet: Json) -> None:
    twice = {"instances": [wanted(subnet, "2001:db8:1::5") for _ in range(2)]}

    error = only_error(await tenant.post("/instances:batch", twice), 422)

    assert error["field"] == "instances[1].vnics[0].ip6"
    assert "twice, first by instances[0].vnics[0]" in error["message"]


async def test_of_requests_at_once_for_one_address_one_gets_it(tenant: Api, subnet: Json) -> None:
    bodies = [wanted(subnet, "2001:db8:1::77") for _ in range(5)]

    replies = await asyncio.gather(*(tenant.post("/instances", body) for body in bodies))

    assert sorted(reply.status_code for reply in replies) == [201] + [409] * 4


async def test_a_batch_gets_addresses_of_both_families(tenant: Api, subnet: Json) -> None:
    await tenant.make("/instances", **wanted(subnet, "2001:db8:1::4"))
    batch = {"instances": [instance(subnet) for _ in range(100)]}

    made = (await tenant.post("/instances:batch", batch)).json()["instances"]

    free = [n for n in range(2, 103) if n != 4]
    assert ip6s(*made) == [str(IPv6Address("2001:db8:1::") + n) for n in free]


async def test_an_exhausted_ipv6_network_is_told_apart(tenant: Api, host: Json) -> None:
    small = await tenant.subnet(await tenant.vpc(), cidr6="2001:db8:1::/126")
    assert ip6s(await tenant.instance(small)) == ["2001:db8:1::2"]
    batch = {"instances": [instance(small) for _ in range(2)]}

    error = only_error(await tenant.post("/instances:batch", batch), 409)

    assert error["field"] == "instances[1].vnics[0].subnet_id"
    assert "2001:db8:1::/126) has 1 free addresses left and 2 were asked" in error["message"]
    assert ip6s(await tenant.instance(small)) == ["2001:db8:1::3"]


# ---- what programming makes of them --------------------------------------------------------------


async def vpc_routes(controller: Controller, vpc: Json, page: int = 100) -> list[str]:
    """The addresses of a VPC's routes, read in pages as a gateway does."""
    found: list[bytes] = []
    async with controller.engine.connect() as connection:
        while True:
            after = found[-1] if found else b""
            part = await read_page(connection, vpc["vni"], after, b"", page)
            found += [ip.tobytes() for ip in part["ip"]]
            if len(part) < page:
                break
    assert found == sorted(set(found))
    return [str(ip_of(ip)) for ip in found]


async def test_each_address_is_a_route_of_its_own(
    controller: Controller, tenant: Api, host: Json
) -> None:
    vpc = await tenant.vpc()
    dual = await tenant.subnet(vpc, cidr6=CIDR6)
    made = await tenant.instance(dual)
    (vnic,) = made["vnics"]

    async with snapshot(controller.engine) as connection:
        rows = await outbox.read(connection)
    deltas = [row for row in rows.routes if row.vni == vpc["vni"]]

    routes = unpack(deltas[-1].entries)
    assert [str(ip_of(ip.tobytes())) for ip in routes["ip"]] == [vnic["ip"], vnic["ip6"]]
    assert len({route["vtep"].tobytes() + route["mac"].tobytes() for route in routes}) == 1
    assert await vpc_routes(controller, vpc) == [vnic["ip"], vnic["ip6"]]

    await tenant.delete(f"/instances/{made['id']}")

    async with snapshot(controller.engine) as connection:
        rows = await outbox.read(connection)
    deltas = [row for row in rows.routes if row.vni == vpc["vni"]]
    gone = unpack(deltas[-1].entries)
    assert [str(ip_of(ip.tobytes())) for ip in gone["ip"]] == [vnic["ip"], vnic["ip6"]]
    assert gone["op"].tolist() == [2, 2]
    assert await vpc_routes(controller, vpc) == []


@pytest.mark.parametrize("page", [1, 2, 3, 5, 100])
async def test_pages_hold_both_families_in_order(
    controller: Controller, tenant: Api, host: Json, page: int
) -> None:
    vpc = await tenant.vpc()
    nets = [
        await tenant.subnet(vpc, "10.9.0.0/24", cidr6="fd00:9::/64"),
        await tenant.subnet(vpc, "10.1.0.0/24"),
        await tenant.subnet(vpc, "10.5.0.0/24", cidr6=CIDR6),
    ]
    made = [await tenant.instance(net) for net in nets for _ in range(2)]
    vnics = [vnic for one in made for vnic in one["vnics"]]
    expected = {ip_bytes(v[ip]) for v in vnics for ip in ("ip", "ip6") if v[ip]}

    found = await vpc_routes(controller, vpc, page)

    assert found == [str(ip_of(ip)) for ip in sorted(expected)]


async def port_of(controller: Controller, host: Json, made: Json) -> Port:
    (document,) = await read_whole(controller.engine, [UUID(host["id"])])
    return next(port for port in document.ports if str(port.instance_id) == made["id"])


async def test_a_document_says_all_that_dhcp_tells(
    controller: Controller, operator: Api, host: Json, subnet: Json
) -> None:
    vpc = {"id": subnet["vpc_id"]}
    net = await operator.subnet(
        vpc, "10.7.0.0/24", cidr6="fd00:7::/80", dns_servers=["fd00:7::53", "10.7.0.53"],
        dhcp_lease_s=600,
    )  # fmt: skip
    body = instance(net, host_id=host["id"]) | {"name": "web_1.prod"}
    made = await operator.make("/instances", **body)

    port = await port_of(controller, host, made)

    assert (port.ip6, port.prefix_len6) == (ip_bytes("fd00:7::2"), 80)
    assert port.router6 == ip_bytes("fd00:7::1")
    assert port.dns == (ip_bytes("fd00:7::53"), ip_bytes("10.7.0.53"))
    assert (port.lease_s, port.hostname) == (600, "web-1-prod")


async def test_a_new_name_reaches_the_host(
    controller: Controller, operator: Api, host: Json, subnet: Json
) -> None:
    made = await operator.instance(subnet, host_id=host["id"])
    (before,) = await read_whole(controller.engine, [UUID(host["id"])])

    await operator.patch(f"/instances/{made['id']}", {"name": "renamed"})

    (after,) = await read_whole(controller.engine, [UUID(host["id"])])
    assert after.revision == before.revision + 1
    assert (await port_of(controller, host, made)).hostname == "renamed"


async def test_rules_for_all_of_ipv6_are_none_for_ipv4(
    controller: Controller, operator: Api, host: Json, subnet: Json
) -> None:
    await operator.instance(subnet, host_id=host["id"])

    (document,) = await read_whole(controller.engine, [UUID(host["id"])])

    (rules,) = document.security_groups.values()
    remotes = {(f"{ip_of(rule.remote)}/{rule.remote_len}", rule.v6_only) for rule in rules}
    assert remotes == {("0.0.0.0/96", False), ("::/0", True)}
