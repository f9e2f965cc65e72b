"""Every resource by the command line: made, listed, shown, changed, deleted, by id and by name."""

import pytest
from system.cli.conftest import Cli, World

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
async def acme(world: World) -> str:
    """A project with that name, and a VPC prod in it; its id."""
    project = await world.cli.json("project", "create", "acme", "--quota", "vpcs=3")
    await world.cli.json("vpc", "create", "prod", "--project", "acme")
    return str(project["id"])


async def test_projects_have_quotas_and_usage(cli: Cli, acme: str) -> None:
    shown = await cli.json("project", "show", "acme")
    assert (shown["id"], shown["quotas"]["vpcs"]) == (acme, 3)

    changed = await cli.json("project", "update", "acme", "--quota", "vpcs=4", "--quota", "vnics=9")
    assert (changed["quotas"]["vpcs"], changed["quotas"]["vnics"]) == (4, 9)
    assert (await cli.json("project", "usage", acme))["used"]["vpcs"] == 1
    assert "vpcs                  1     4" in (await cli("project", "usage", "acme")).out
    assert [p["id"] for p in (await cli.json("project", "list", "--name", "acme"))["items"]] == [
        acme
    ]

    await cli.json("project", "create", "passing")
    deleted = await cli("project", "delete", "passing")
    assert (deleted.code, deleted.out, deleted.err) == (0, "", "project passing deleted\n")


async def test_a_project_s_token_opens_that_project_only_until_it_is_deleted(
    cli: Cli, acme: str
) -> None:
    other = (await cli.json("project", "create", "other"))["id"]
    await cli.json("vpc", "create", "hidden", "--project", "other")
    token = await cli.json("token", "create", "ci", "--project", "acme")
    tenant = cli.having(ACHELOUS_TOKEN=token["token"])

    assert {vpc["project_id"] for vpc in (await tenant.json("vpc", "list"))["items"]} == {acme}
    assert (await tenant("vpc", "show", "hidden")).code == 3
    assert (await tenant("vpc", "list", "--project", other)).out == ""
    refused = await tenant("host", "list")
    assert (refused.code, refused.out) == (1, "")
    assert "Forbidden: this needs an operator's token" in refused.err

    assert "token" not in await cli.json("token", "show", "ci")
    listed = await cli.json("token", "list", "--project", "acme")
    assert [item["id"] for item in listed["items"]] == [token["id"]]
    assert (await cli("token", "delete", "ci")).code == 0
    assert "Unauthenticated" in (await tenant("vpc", "list")).err


async def test_hosts_and_gateways_are_registered_and_let_go(cli: Cli) -> None:
    host = await cli.json("host", "create", "h9", "--vtep", "198.18.0.19", "--capacity", "5")
    assert (await cli.json("host", "update", "h9", "--capacity", "7"))["capacity"] == 7
    assert (await cli.json("host", "show", host["id"], "--no-tables"))["vtep"] == "198.18.0.19"
    assert "198.18.0.19" in (await cli("host", "list", "--name", "h9")).out
    assert (await cli.json("host", "update", "h9", "--draining"))["draining"]
    assert "draining" in (await cli("host", "list", "--name", "h9")).out.splitlines()[-1]
    assert not (await cli.json("host", "update", "h9", "--no-draining"))["draining"]
    assert (await cli("host", "update", "h9")).code == 2
    assert (await cli("host", "delete", "h9")).code == 0
    assert (await cli("host", "show", "h9")).code == 3

    await cli.json("gateway", "create", "g9", "--vtep", "198.18.0.9")
    await cli.json("gateway", "update", "g9", "--name", "g10")
    assert "198.18.0.9" in (await cli("gateway", "show", "g10", "--no-tables")).out
    assert [g["name"] for g in (await cli.json("gateway", "list"))["items"]] == ["g10"]
    assert (await cli("gateway", "delete", "g10")).code == 0


async def test_vpcs_and_subnets_are_found_by_their_names(cli: Cli, acme: str) -> None:
    model = ("--programming-model", "preprogrammed")
    vpc = await cli.json("vpc", "create", "lab", "--project", "acme", *model)
    assert vpc["programming_model"] == "preprogrammed"
    subnet = await cli.json(
        "subnet", "create", "web", "--vpc", "lab", "--cidr", "10.0.1.0/24",
        "--gateway-ip", "10.0.1.254",
    )  # fmt: skip
    assert (subnet["vpc_id"], subnet["gateway_ip"]) == (vpc["id"], "10.0.1.254")
    await cli.json("subnet", "create", "web", "--vpc", "prod", "--cidr", "10.0.1.0/24")

    for reference in (subnet["id"], "lab/web", "acme/lab/web", f"{vpc['id']}/web"):
        assert (await cli.json("subnet", "show", reference))["id"] == subnet["id"]
    assert [s["id"] for s in (await cli.json("subnet", "list", "--vpc", "lab"))["items"]] == [
        subnet["id"]
    ]
    ambiguous = await cli("subnet", "delete", "web", "--json")
    assert ambiguous.code == 2
    assert subnet["id"] in ambiguous.problem["ids"]
    assert "or write VPC/web" in ambiguous.problem["detail"]

    in_use = await cli("vpc", "delete", "lab")
    assert (in_use.code, in_use.err.partition(":")[0]) == (1, "In use")
    assert (await cli.json("subnet", "update", "lab/web", "--name", "front"))["name"] == "front"
    assert (await cli("subnet", "delete", "lab/front")).code == 0
    stale = await cli("vpc", "update", "lab", "--name", "lab2", "--if-version", "99")
    assert (stale.code, stale.err.partition(":")[0]) == (1, "Precondition failed")
    assert (await cli.json("vpc", "update", "lab", "--name", "lab2"))["id"] == vpc["id"]
    assert (await cli("vpc", "delete", "acme/lab2")).code == 0
    assert "lab2" not in (await cli("vpc", "list")).out


async def test_security_groups_have_rules(cli: Cli, acme: str) -> None:
    group = await cli.json("security-group", "create", "web", "--vpc", "prod")
    rules = ("security-group", "rule")
    rule = await cli.json(
        *rules, "create", "prod/web", "--direction", "ingress", "--protocol", "tcp",
        "--port", "80", "--port-max", "443", "--remote", "10.0.0.0/8",
    )  # fmt: skip
    assert (rule["port_min"], rule["port_max"], rule["remote"]) == (80, 443, "10.0.0.0/8")
    esp = await cli.json(*rules, "create", "web", "--direction", "egress", "--protocol", "50")
    assert esp["protocol"] == 50
    await cli.json("security-group", "create", "db", "--vpc", "prod")
    ping = await cli.json(
        *rules, "create", "db", "--direction", "ingress", "--protocol", "icmp", "--icmp-type", "8",
        "--remote-group", "web", "--action", "deny", "--priority", "7",
    )  # fmt: skip
    assert (ping["remote_group_id"], ping["remote"]) == (group["id"], None)
    assert (ping["icmp_type"], ping["action"], ping["priority"]) == (8, "deny", 7)
    assert (await cli(*rules, "delete", "db", ping["id"])).code == 0
    assert (await cli("security-group", "delete", "db")).code == 0

    assert (await cli.json(*rules, "show", "web", rule["id"])) == rule
    assert len((await cli.json(*rules, "list", group["id"]))["items"]) == 4
    table = (await cli("security-group", "show", "web")).out
    assert f"{rule['id']}  ingress    tcp       80        443       10.0.0.0/8" in table
    assert (await cli(*rules, "delete", "web", rule["id"])).code == 0
    assert rule["id"] not in (await cli(*rules, "list", "web")).out

    await cli.json("security-group", "update", "web", "--name", "front")
    listed = await cli.json("security-group", "list", "--vpc", "prod", "--project", "acme")
    assert {group["name"] for group in listed["items"]} == {"default", "front"}
    assert (await cli("security-group", "delete", "front")).code == 0


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("vpc show nowhere", 3, "Not found: there is no VPC with the name nowhere"),
        ("vpc show 019aa0c1-6f1e-7d35-a7a8-4f1d3b8f7f10", 3, "Not found"),
        ("vpc create p", 1, "project_id = null: an operator has to name the project"),
        ("vpc create prod --project acme", 1, "Conflict"),
        ("vpc create p --project nowhere", 3, "no project with the name nowhere"),
        ("vpc create -x", 2, "No such option"),
        ("vpc update prod", 2, "nothing to update: give --name"),
        ("subnet create s --vpc prod", 2, "Missing option '--cidr'"),
        ("subnet create s --vpc prod --cidr 10.9.0.7/24", 1, 'cidr = "10.9.0.7/24": '),
        ("security-group rule show prod/default web", 2, "'web' is no id"),
        ("security-group rule list prod/default/x", 3, "Not found"),
        ("token show acme/ci", 2, "the name of a token stands alone"),
        ("project create x --quota vpcs=many", 2, "--quota vpcs=many: write RESOURCE=NUMBER"),
        ("project create x --quota cats=1", 1, "quotas.cats = 1: "),
        ("host create h --vtep 127.0.0.1", 1, 'vtep = "127.0.0.1": '),
        ("host list --limit 0", 2, "--limit"),
        ("instance list --state GONE", 2, "'GONE' is not one of"),
    ],
)
async def test_a_mistake_gets_its_exit_code_and_what_the_api_said(
    cli: Cli, acme: str, command: str, code: int, said: str
) -> None:
    ended = await cli(*command.split())
    assert said in ended.err
    assert (ended.code, ended.out) == (code, "")

    as_json = await cli(*command.split(), "--json")
    assert as_json.problem["title"]
    assert (as_json.code, as_json.out) == (code, "")


async def test_a_subnet_may_have_ipv6_and_tell_guests_of_resolvers(cli: Cli, acme: str) -> None:
    subnet = await cli.json(
        "subnet", "create", "dual", "--vpc", "prod", "--cidr", "10.6.0.0/24",
        "--cidr6", "fd00:6::/64", "--gateway-ip6", "fd00:6::fe",
        "--dns-server", "10.6.0.53", "--dns-server", "fd00:6::53", "--dhcp-lease", "120",
    )  # fmt: skip
    assert (subnet["cidr6"], subnet["gateway_ip6"]) == ("fd00:6::/64", "fd00:6::fe")
    assert (subnet["dns_servers"], subnet["dhcp_lease_s"]) == (["10.6.0.53", "fd00:6::53"], 120)
    listed = (await cli("subnet", "list", "--vpc", "prod")).out
    assert "fd00:6::/64  fd00:6::fe" in listed
    refused = await cli("subnet", "create", "n", "--vpc", "prod", "--cidr", "10.7.0.0/24",
                        "--cidr6", "fd00:6::/80")  # fmt: skip
    assert refused.code == 1
    assert "fd00:6::/80 overlaps subnet dual" in refused.err
