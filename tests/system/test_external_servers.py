"""`achelous up --dsn --nats`: a platform on servers that exist already."""

import pytest

from achelous_lab.api import Rule
from achelous_lab.platform import External, Lab, Size
from achelous_lab.rundir import RunDir
from achelous_lab.servers.nats import NatsServer
from achelous_lab.servers.postgres import PostgresServer
from achelous_shared.bus_roles import Role

pytestmark = pytest.mark.kernel


async def test_a_platform_runs_on_servers_of_others(run_dir: RunDir) -> None:
    async with (
        NatsServer(run_dir.subdir("nats")) as nats,
        PostgresServer(run_dir.subdir("postgres"), fsync=False) as postgres,
    ):
        token = run_dir.path / "token"
        external = External(postgres.dsn(), nats.url(Role.OBSERVER), operator_token_file=token)
        size = Size(hosts=1, gateways=1)
        async with Lab(size, external) as lab:
            tenant = await lab.tenant("acme")
            vpc = await tenant.vpc("prod")
            subnet = await tenant.subnet(vpc, "10.0.0.0/24")
            group = await tenant.security_group(vpc, "open", Rule())
            one = await lab.instance(tenant, subnet, "one", groups=[group])
            two = await lab.instance(tenant, subnet, "two", groups=[group])
            ping = await one.guest.ping(two.guest, count=3)
        async with Lab(size, external) as again:
            (found,) = (await again.api.get("/instances", name="one"))["items"]
            back = await again.plug_in(found)
            await again.api.wait_active(str(back.id))
        assert lab.nats is None
        assert lab.postgres is None
        assert ping.lost == 0
        assert [host.id for host in again.hosts] == [host.id for host in lab.hosts]
        assert nats.process.running
        assert postgres.process.running
