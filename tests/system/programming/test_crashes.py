"""Leaders and writers that end, or are of another version, anywhere: nothing stays half done."""

from collections.abc import Sequence

from programming_world import World
from sqlalchemy import text

from achelous_lab.waiting import wait_until

_OLD_WRITERS = (
    """CREATE FUNCTION as_before() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF TG_TABLE_NAME = 'outbox' THEN
            NEW.pending := NEW.cohorts;
            NEW.cohorts := NULL;
            RETURN NEW;
        END IF;
        IF current_setting('application_name') = 'achelous-controller' THEN
            RETURN NULL;
        END IF;
        RETURN NEW;
    END $$""",
    "CREATE TRIGGER t BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION as_before()",
    "CREATE TRIGGER t BEFORE INSERT ON pending FOR EACH ROW EXECUTE FUNCTION as_before()",
)
"""The database as controllers from before 0010 write it."""


async def execute(world: World, statements: Sequence[str]) -> None:
    async with world.engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def until_settled(world: World, timeout: float = 10) -> None:
    """Until nothing waits to be published, and nobody to be ACTIVE or gone."""

    query = text("SELECT EXISTS (SELECT FROM outbox) OR EXISTS (SELECT FROM pending)")

    async def settled() -> bool:
        async with world.engine.connect() as connection:
            return not (await connection.execute(query)).scalar_one()

    await wait_until(settled, "outbox and pending to be empty", timeout=timeout)


async def test_what_a_leader_published_and_did_not_take_from_the_outbox_is_no_harm(
    idle: World,
) -> None:
    subnet = await idle.subnet()
    made = await idle.instances(subnet, 30)
    await idle.delete(made[:5])
    await execute(idle, ["CREATE TABLE kept AS SELECT * FROM outbox"])
    first = await idle.add_controller()
    await idle.until_active()
    await first.crash()
    await execute(
        idle,
        ["DELETE FROM outbox", "INSERT INTO outbox OVERRIDING SYSTEM VALUE SELECT * FROM kept"],
    )

    await idle.add_controller()

    await until_settled(idle)
    assert await idle.states() == {"ACTIVE": 25}
    await idle.assert_tables_equal()


async def test_who_leads_next_takes_over_what_was_published_and_not_active(idle: World) -> None:
    for host in idle.hosts:
        host.mute = True
    first = await idle.add_controller()
    subnet = await idle.subnet()
    made = await idle.instances(subnet, 30)
    await wait_until(lambda: len(idle.gateways[0].received) == 1, "the routes")
    await first.crash()
    for host in idle.hosts:
        host.mute = False

    await idle.delete(made[:5])
    await idle.add_controller()

    await idle.until_active()
    await until_settled(idle)
    assert await idle.states() == {"ACTIVE": 25}
    await idle.assert_tables_equal()


async def test_what_writers_of_before_leave_is_found(idle: World) -> None:
    await execute(idle, _OLD_WRITERS)
    subnet = await idle.subnet()
    before = await idle.instances(subnet, 10)
    await idle.add_controller()
    await idle.until_active()

    await idle.delete(before[:4])
    await idle.instances(subnet, 10)

    await wait_until(lambda: has_states(idle, {"ACTIVE": 16}), "all to become what they shall")
    await until_settled(idle)
    await idle.assert_tables_equal()


async def has_states(world: World, wanted: dict[str, int]) -> bool:
    return await world.states() == wanted


async def test_what_a_leader_of_before_made_active_is_not_looked_after_for_ever(
    idle: World,
) -> None:
    first = await idle.add_controller()
    await idle.instances(await idle.subnet(), 10)
    await idle.until_active()
    await first.crash()
    await execute(
        idle,
        [
            "INSERT INTO pending SELECT id, host_id, host_revision FROM instances",
            "INSERT INTO pending VALUES (gen_random_uuid(), gen_random_uuid(), 1)",
        ],
    )

    await idle.add_controller()

    await until_settled(idle)
    assert await idle.states() == {"ACTIVE": 10}


async def test_one_that_is_locked_holds_nobody_up_and_follows(world: World) -> None:
    subnet, host = await world.subnet(), world.hosts[0]
    host.mute = True
    made = await world.instances(subnet, 10, host)
    lock = text("SELECT FROM instances WHERE id = :id FOR UPDATE")

    async with world.engine.begin() as connection:
        await connection.execute(lock, {"id": made[3]})
        host.mute = False
        await wait_until(lambda: has_states(world, {"ACTIVE": 9, "BUILDING": 1}), "the others")

    await world.until_active()
    await until_settled(world)


async def test_one_that_is_withdrawn_while_it_is_built_goes_and_the_others_stay(
    world: World,
) -> None:
    subnet, host = await world.subnet(), world.hosts[0]
    host.mute = True
    made = await world.instances(subnet, 10, host)
    await world.delete(made[:2])

    host.mute = False

    await wait_until(lambda: has_states(world, {"ACTIVE": 8}), "the others")
    await until_settled(world)
    await world.assert_tables_equal()


async def test_devices_that_appear_one_after_the_other(world: World) -> None:
    """A cohort of which the host runs ever more."""
    subnet, host = await world.subnet(), world.hosts[0]
    host.devices = False
    await world.instances(subnet, 6, host)
    await wait_until(lambda: host.ports() == 6, "the document")

    for up in range(1, 7):
        host.up = up
        host.moved()
        await wait_until(
            lambda up=up: has_states(world, counts(up)),  # type: ignore[misc]
            "those whose devices are there",
        )
    await until_settled(world)


def counts(up: int) -> dict[str, int]:
    return {state: n for state, n in (("ACTIVE", up), ("BUILDING", 6 - up)) if n}


async def test_becoming_active_leaves_the_indexes_alone(world: World) -> None:
    """Nearly: now and then a page is full."""
    await world.instances(await world.subnet(), 500)
    await world.until_active()
    query = text(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'instances'"
    )

    async def told() -> bool:
        async with world.engine.connect() as connection:
            updated, hot = (await connection.execute(query)).one()
        return bool(updated >= 500 and hot >= 0.95 * updated)

    await wait_until(told, "PostgreSQL to count updates that no index was told of")
