"""The migrations make the schema that the code works with."""

import asyncio

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from api.client import fresh
from api.conftest import Controller
from sqlalchemy import Connection, text

from achelous_controller.store.database import create_engine
from achelous_controller.store.migrate import migrate, upgrade
from achelous_controller.store.schema import MAC, VNI, metadata
from achelous_lab.servers.postgres import PostgresServer


def differences(connection: Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(connection), metadata))


async def test_the_migrations_make_the_tables_of_the_code(controller: Controller) -> None:
    async with controller.engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_the_migrations_make_the_sequences_of_the_code(controller: Controller) -> None:
    query = text("SELECT sequencename, start_value, max_value, cycle FROM pg_sequences")
    async with controller.engine.connect() as connection:
        found = {tuple(row) for row in await connection.execute(query)}

    assert {(s.name, s.start, s.maxvalue, False) for s in (VNI, MAC)} <= found


async def test_controllers_that_start_at_once_migrate_once(postgres: PostgresServer) -> None:
    dsn = await postgres.create_database(fresh("db").replace("-", "_"))
    engines = [create_engine(dsn) for _ in range(3)]

    await asyncio.gather(*(migrate(engine) for engine in engines))

    async with engines[0].connect() as connection:
        assert await connection.run_sync(differences) == []
    for engine in engines:
        await engine.dispose()


BEFORE_IPV6 = """
    CREATE FUNCTION pg_temp.id(n integer) RETURNS uuid LANGUAGE sql AS
        $$ SELECT lpad(n::text, 32, '0')::uuid $$;
    INSERT INTO projects (id, name, quotas) VALUES (pg_temp.id(1), 'p', '{}');
    INSERT INTO usage (project_id) VALUES (pg_temp.id(1));
    INSERT INTO vpcs (id, project_id, name, vni) VALUES (pg_temp.id(1), pg_temp.id(1), 'v', 5000);
    INSERT INTO security_groups (id, project_id, vpc_id, name, created_at)
    SELECT pg_temp.id(n), pg_temp.id(1), pg_temp.id(1), name, now() + n * interval '1 hour'
    FROM (VALUES (1, 'old'), (2, 'closed'), (3, 'new'), (4, 'new but no IPv6')) AS g (n, name);
    INSERT INTO security_group_rules
        (id, security_group_id, egress, protocol, port_min, port_max, remote, created_at)
    SELECT pg_temp.id(n), pg_temp.id(of), true, 0, 0, 65535, remote, now() + of * interval '1 hour'
    FROM (VALUES
        (1, 1, '0.0.0.0/0'::cidr), (2, 3, '0.0.0.0/0'), (3, 3, '::/0'), (4, 4, '0.0.0.0/0')
    ) AS r (n, of, remote);
    INSERT INTO hosts (id, name, vtep, capacity)
    SELECT pg_temp.id(n), 'h' || n, '198.18.0.0'::inet + n, 9 FROM generate_series(1, 2) AS n;
    INSERT INTO subnets (id, project_id, vpc_id, name, cidr, gateway_ip, next_ip) VALUES
        (pg_temp.id(1), pg_temp.id(1), pg_temp.id(1), 's', '10.0.0.0/24', '10.0.0.1', '10.0.0.2');
    INSERT INTO instances
        (id, project_id, name, kind, host_id, state, host_revision, accepted_at)
    SELECT pg_temp.id(n), pg_temp.id(1), 'i' || n, 'vm', pg_temp.id(n), 'ACTIVE', 1, now()
    FROM generate_series(1, 2) AS n;
    INSERT INTO vnics (id, instance_id, subnet_id, project_id, vpc_id, host_id, position, ip, mac,
        vni, revision)
    SELECT pg_temp.id(n), pg_temp.id(n), pg_temp.id(1), pg_temp.id(1), pg_temp.id(1),
        pg_temp.id(n), 0, '10.0.0.4'::inet + n, n, 5000, 1
    FROM generate_series(1, 2) AS n;
    INSERT INTO vnic_security_groups VALUES
        (pg_temp.id(1), pg_temp.id(1)), (pg_temp.id(2), pg_temp.id(3));
"""
"""Four groups; the vNIC of host 1 is in the old one, that of host 2 in the new one."""

LETTING_IPV6_OUT = """
    SELECT g.name FROM security_groups AS g
    JOIN security_group_rules AS r ON r.security_group_id = g.id
    WHERE r.egress AND r.remote = '::/0' ORDER BY g.name
"""


async def test_groups_from_before_ipv6_let_it_out_as_well(postgres: PostgresServer) -> None:
    engine = create_engine(await postgres.create_database(fresh("db").replace("-", "_")))
    async with engine.begin() as connection:
        await connection.run_sync(upgrade, "0004_scale")
        for statement in BEFORE_IPV6.split(";\n"):
            if statement.strip():
                await connection.execute(text(statement))
    await migrate(engine)

    async with engine.connect() as connection:
        assert list((await connection.execute(text(LETTING_IPV6_OUT))).scalars()) == ["new", "old"]
        rules = text("SELECT security_group_rules FROM usage")
        assert (await connection.execute(rules)).scalar() == 5
        told = (await connection.execute(text("SELECT host_id FROM outbox"))).scalars()
        assert [host.int for host in told] == [1]
    await engine.dispose()


SOME_BUILDING = """
    INSERT INTO instances
        (id, project_id, name, kind, host_id, state, host_revision, accepted_at)
    SELECT lpad(n::text, 32, '0')::uuid, lpad('1', 32, '0')::uuid, 'i' || n, 'vm',
        lpad('7', 32, '0')::uuid, state, n, now()
    FROM (VALUES (1, 'ACTIVE'), (2, 'BUILDING'), (3, 'ERROR'), (4, 'DELETING')) AS i (n, state)
"""


async def test_what_was_not_active_before_there_was_pending_is_in_it(
    postgres: PostgresServer,
) -> None:
    engine = create_engine(await postgres.create_database(fresh("db").replace("-", "_")))
    async with engine.begin() as connection:
        await connection.run_sync(upgrade, "0008_egress6")
        await connection.execute(text(SOME_BUILDING))
    await migrate(engine)

    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT * FROM pending ORDER BY instance_id"))
        found = [(row.instance_id.int, row.host_id.int, row.host_revision) for row in rows]
    assert found == [(2, 7, 2), (3, 7, 3), (4, 7, 4)]
    await engine.dispose()


CREATION = """
    SELECT id FROM vpcs WHERE id = lpad('1', 32, '0')::uuid FOR UPDATE;
    UPDATE hosts SET revision = revision + 1 WHERE id = lpad('{host}', 32, '0')::uuid;
    INSERT INTO instances (id, project_id, name, kind, host_id, state, host_revision, accepted_at)
    VALUES (gen_random_uuid(), lpad('1', 32, '0')::uuid, 'n', 'vm', lpad('{host}', 32, '0')::uuid,
        'ACTIVE', 1, now())
"""
"""The locks of a creation by a controller of before, in their order."""


async def test_controllers_go_on_beside_the_one_that_migrates(postgres: PostgresServer) -> None:
    dsn = await postgres.create_database(fresh("db").replace("-", "_"))
    engine, migrated = create_engine(dsn), asyncio.Event()
    async with engine.begin() as connection:
        await connection.run_sync(upgrade, "0010_cohorts")
        for statement in (BEFORE_IPV6 + NUMBERS_GIVEN).split(";\n"):
            if statement.strip():
                await connection.execute(text(statement))

    async def creates(host: int) -> int:
        count = 0
        while not migrated.is_set() or not count:
            async with engine.begin() as connection:
                for statement in CREATION.format(host=host).split(";\n"):
                    await connection.execute(text(statement))
            count += 1
        return count

    async with asyncio.TaskGroup() as group:  # which fails if one of them does
        others = [group.create_task(creates(host)) for host in (1, 2, 1, 2)]
        await migrate(engine)
        migrated.set()

    made = text("SELECT count(*) FROM instances")
    async with engine.connect() as connection:
        assert (await connection.execute(made)).scalar_one() == 2 + sum(o.result() for o in others)
        assert await connection.run_sync(differences) == []
    await engine.dispose()


NUMBERS_GIVEN = """
    INSERT INTO security_group_rules
        (id, security_group_id, egress, protocol, port_min, port_max, remote_group_id)
    VALUES (pg_temp.id(9), pg_temp.id(1), false, 0, 0, 65535, pg_temp.id(2));
    UPDATE vpcs SET next_identity = 6;
    INSERT INTO identities (vpc_id, number, groups) VALUES
        (pg_temp.id(1), 2, ARRAY[pg_temp.id(2)]), (pg_temp.id(1), 5, ARRAY[pg_temp.id(3)])
"""
"""Five numbers were given, of which two are in use; a group of the vNIC of host 1 names one."""


async def test_numbers_given_up_before_rest_and_hosts_are_told(postgres: PostgresServer) -> None:
    engine = create_engine(await postgres.create_database(fresh("db").replace("-", "_")))
    async with engine.begin() as connection:
        await connection.run_sync(upgrade, "0010_cohorts")
        for statement in (BEFORE_IPV6 + NUMBERS_GIVEN).split(";\n"):
            if statement.strip():
                await connection.execute(text(statement))
    await migrate(engine)

    async with engine.connect() as connection:
        retired = text("SELECT number FROM retired_identities ORDER BY 1")
        assert list((await connection.execute(retired)).scalars()) == [1, 3, 4]
        told = await connection.execute(text("SELECT host_id, revision, vnics FROM outbox"))
        assert [(row.host_id.int, row.revision, row.vnics) for row in told] == [(1, 1, None)]
    await engine.dispose()
