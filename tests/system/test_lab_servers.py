"""The lab's own NATS and PostgreSQL: who may do what, and what a crash leaves."""

import asyncio
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import nats
import pytest
from nats.aio.client import Client
from nats.js.api import StreamConfig
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from achelous_lab.process import run
from achelous_lab.rundir import RunDir
from achelous_lab.servers.nats import NatsServer
from achelous_lab.servers.postgres import PostgresServer
from achelous_lab.waiting import wait_until
from achelous_shared import subjects
from achelous_shared.bus import Bus
from achelous_shared.bus_roles import Role

Connect = Callable[[Role], Awaitable[tuple[Client, list[str]]]]


@pytest.fixture
async def nats_server(run_dir: RunDir) -> AsyncIterator[NatsServer]:
    async with NatsServer(run_dir.subdir("nats")) as server:
        yield server


@pytest.fixture
async def postgres(run_dir: RunDir) -> AsyncIterator[PostgresServer]:
    async with PostgresServer(run_dir.subdir("pg"), fsync=False) as server:
        yield server


@pytest.fixture
async def connect(nats_server: NatsServer) -> AsyncIterator[Connect]:
    """Clients, each with the list of the errors that the server has told it."""
    clients: list[Client] = []

    async def connect(role: Role) -> tuple[Client, list[str]]:
        errors: list[str] = []

        async def note(error: Exception) -> None:
            errors.append(str(error))

        prefix = subjects.inbox(role).encode()
        client = await nats.connect(nats_server.url(role), inbox_prefix=prefix, error_cb=note)
        clients.append(client)
        return client, errors

    yield connect
    for client in clients:
        await client.close()


@pytest.mark.parametrize(
    ("role", "subject"),
    [
        (Role.VSWITCH, subjects.routes(7)),
        (Role.VSWITCH, subjects.FLEET),
        (Role.VSWITCH, f"$JS.API.STREAM.CREATE.{subjects.ROUTES_STREAM}"),
        (Role.VSWITCH, f"$JS.API.STREAM.PURGE.{subjects.HOSTS_STREAM}"),
        (Role.VSWITCH, f"$JS.API.CONSUMER.CREATE.{subjects.HOSTS_STREAM}"),
        (Role.VSWITCH, f"$JS.API.CONSUMER.CREATE.{subjects.ROUTES_STREAM}"),
        (Role.VSWITCH, f"$JS.API.STREAM.DELETE.{subjects.ROUTES_STREAM}"),
        (Role.GATEWAY, subjects.routes(7)),
        (Role.GATEWAY, f"$JS.API.CONSUMER.CREATE.{subjects.HOSTS_STREAM}.c.{subjects.ALL_HOSTS}"),
        (Role.GATEWAY, f"$JS.API.STREAM.DELETE.{subjects.ROUTES_STREAM}"),
        (Role.CONTROLLER, f"{subjects.PREFIX}.applied.gateway.x"),
        (Role.CONTROLLER, "$JS.API.STREAM.CREATE.OTHER"),
    ],
)
async def test_a_role_cannot_publish_what_another_role_says(
    connect: Connect, role: Role, subject: str
) -> None:
    observer, _ = await connect(Role.OBSERVER)
    overheard = await observer.subscribe(">")
    await observer.flush()
    client, errors = await connect(role)

    await client.publish(subject, b"forged")
    await client.flush()

    await wait_until(lambda: bool(errors), "the server's refusal")
    assert "permissions violation for publish" in errors[0].lower()
    assert subject.lower() in errors[0].lower()
    await observer.flush()
    while overheard.pending_msgs:
        assert (await overheard.next_msg()).data != b"forged"


@pytest.mark.parametrize(
    ("role", "subject"),
    [
        (Role.VSWITCH, subjects.ALL_ROUTES),
        (Role.VSWITCH, "_INBOX_gateway.>"),
        (Role.VSWITCH, f"{subjects.PREFIX}.rsp.*"),
        (Role.GATEWAY, subjects.ALL_HOSTS),
        (Role.GATEWAY, ">"),
        (Role.CONTROLLER, "_INBOX_vswitch.>"),
    ],
)
async def test_a_role_cannot_listen_to_what_is_not_for_it(
    connect: Connect, role: Role, subject: str
) -> None:
    client, errors = await connect(role)
    await client.subscribe(subject)
    await client.flush()
    await wait_until(lambda: bool(errors), "the server's refusal")
    assert "permissions violation for subscription" in errors[0].lower()


async def test_a_wrong_password_or_none_is_refused(nats_server: NatsServer) -> None:
    address = nats_server.url(Role.VSWITCH).rpartition("@")[2]
    for url in (f"nats://{address}", f"nats://vswitch:guess@{address}"):
        client = Client()
        with pytest.raises(nats.errors.Error, match=r"(?i)authorization"):
            await client.connect(url, allow_reconnect=False)
        await client.close()


async def test_every_role_can_do_its_own_work(nats_server: NatsServer) -> None:
    """Streams, documents, snapshots and RSP pass between the roles as the services use them."""
    heard: dict[str, bytes] = {}

    def hear(name: str) -> Callable[[bytes], Awaitable[None]]:
        async def note(data: bytes) -> None:
            heard[name] = data

        return note

    async def echo(data: bytes) -> bytes:
        return b"re:" + data

    def bus(role: Role):  # type: ignore[no-untyped-def]
        return Bus.connect(nats_server.url(role), role=role, name=f"test-{role}")

    routes = StreamConfig(name=subjects.ROUTES_STREAM, subjects=[subjects.ALL_ROUTES])
    hosts = StreamConfig(
        name=subjects.HOSTS_STREAM,
        subjects=[subjects.ALL_HOSTS, subjects.ALL_HOST_CHANGES, subjects.FLEET],
        max_msgs_per_subject=1,
    )
    async with (
        bus(Role.CONTROLLER) as controller,
        bus(Role.GATEWAY) as gateway,
        bus(Role.VSWITCH) as vswitch,
    ):
        await controller.ensure_stream(routes)
        await controller.ensure_stream(hosts)
        await controller.publish_stream(
            subjects.HOSTS_STREAM, subjects.FLEET, b"fleet", message_id="f1"
        )
        tasks = [
            asyncio.create_task(work)
            for work in (
                gateway.follow(
                    subjects.ROUTES_STREAM, subjects.ALL_ROUTES, hear("delta"), last=False
                ),
                gateway.follow(subjects.HOSTS_STREAM, subjects.FLEET, hear("g-fleet"), last=True),
                vswitch.follow(subjects.HOSTS_STREAM, subjects.FLEET, hear("v-fleet"), last=True),
                controller.serve(subjects.SNAPSHOT_ROUTES, echo),
                gateway.serve(f"{subjects.PREFIX}.rsp.g1", echo),
                vswitch.serve(f"{subjects.PREFIX}.command.vswitch.h1.show", echo),
            )
        ]
        try:
            await wait_until(lambda: {"g-fleet", "v-fleet"} <= heard.keys(), "the fleet document")
            await wait_until(_delta_arrives(controller, heard), "the delta", interval=0.1)
            asked = [
                await gateway.request(subjects.SNAPSHOT_ROUTES, b"1", timeout=2),
                await vswitch.request(f"{subjects.PREFIX}.rsp.g1", b"2", timeout=2),
                await controller.request(
                    f"{subjects.PREFIX}.command.vswitch.h1.show", b"3", timeout=2
                ),
            ]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    assert heard == {"g-fleet": b"fleet", "v-fleet": b"fleet", "delta": b"delta"}
    assert asked == [b"re:1", b"re:2", b"re:3"]


def _delta_arrives(controller: Bus, heard: dict[str, bytes]) -> Callable[[], Awaitable[bool]]:
    """Publish again until the follower, which starts at the stream's end, has joined."""
    attempt = iter(range(1000))

    async def arrives() -> bool:
        await controller.publish_stream(
            subjects.ROUTES_STREAM, subjects.routes(7), b"delta", message_id=f"7-{next(attempt)}"
        )
        return "delta" in heard

    return arrives


async def test_nats_killed_and_started_again_keeps_port_and_streams(
    nats_server: NatsServer, connect: Connect
) -> None:
    client, _ = await connect(Role.OBSERVER)
    stream = client.jetstream()
    await stream.add_stream(name=subjects.HOSTS_STREAM, subjects=[subjects.ALL_HOSTS])
    await stream.publish(f"{subjects.PREFIX}.host.x", b"document")
    url = nats_server.url(Role.OBSERVER)

    await nats_server.kill9()
    assert not nats_server.process.running
    await nats_server.start()

    assert nats_server.url(Role.OBSERVER) == url
    again, _ = await connect(Role.OBSERVER)
    message = await again.jetstream().get_last_msg(
        subjects.HOSTS_STREAM, f"{subjects.PREFIX}.host.x"
    )
    assert message.data == b"document"


async def test_nats_shows_its_passwords_to_its_owner_only(run_dir: RunDir) -> None:
    async with NatsServer(run_dir.subdir("nats")):
        config = run_dir.path / "nats" / "nats.conf"
        assert stat.S_IMODE(config.stat().st_mode) == 0o600
        assert stat.S_IMODE(run_dir.path.stat().st_mode) == 0o700


async def test_postgres_is_reached_by_sqlalchemy_and_has_the_committed_rows_after_a_kill(
    postgres: PostgresServer,
) -> None:
    engine = create_async_engine(postgres.dsn())
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE kept (id int)"))
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO kept SELECT generate_series(1, 1000)"))

    await postgres.kill9()
    await engine.dispose()
    await postgres.start()

    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM kept"))).scalar_one() == 1000
    await engine.dispose()


async def test_postgres_gives_each_test_a_database_of_its_own(postgres: PostgresServer) -> None:
    names = ["one", "two"]
    for dsn in [await postgres.create_database(name) for name in names]:
        engine = create_async_engine(dsn)
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE mine (id int)"))
        await engine.dispose()


async def test_postgres_listens_on_its_socket_only_and_admits_its_owner_only(
    postgres: PostgresServer, run_dir: RunDir
) -> None:
    directory = run_dir.path / "pg"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    connection = await asyncpg.connect(host=str(directory), user="achelous", database="achelous")
    try:
        assert await connection.fetchval("SHOW listen_addresses") == ""
        assert await connection.fetchval("SELECT count(*) FROM pg_hba_file_rules") == 1
    finally:
        await connection.close()
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError, match="Peer"):
        await asyncpg.connect(host=str(directory), user="postgres", database="achelous")


@pytest.mark.kernel
async def test_postgres_refuses_another_user_even_on_an_open_socket(
    postgres: PostgresServer, run_dir: RunDir
) -> None:
    """Peer authentication stands by itself, should the directory ever be opened."""
    run_dir.path.chmod(0o711)
    (run_dir.path / "pg").chmod(0o711)
    (run_dir.path / "pg" / ".s.PGSQL.5432").chmod(0o777)
    client = (
        "import socket, struct, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "b = struct.pack('!i', 196608) + b'user\\0achelous\\0database\\0achelous\\0\\0';"
        "s.send(struct.pack('!i', len(b) + 4) + b); print(s.recv(200))"
    )
    as_other = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups", "--"]
    done = await run(
        [*as_other, "/usr/bin/python3", "-c", client, run_dir.path / "pg" / ".s.PGSQL.5432"],
        timeout=10,
    )
    assert b'Peer authentication failed for user "achelous"' in done.stdout


def test_a_socket_path_that_is_too_long_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set TMPDIR to a shorter directory"):
        PostgresServer(tmp_path / ("x" * 100))
