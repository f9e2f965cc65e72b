"""One controller leads; when it is gone, another takes over within two seconds."""

import pytest
from programming_world import Controller, World
from sqlalchemy import text

from achelous_controller.programming.fleet import HostStatus
from achelous_controller.programming.observer import Observer
from achelous_lab.waiting import wait_until

HANDOVER_S = 2.0


@pytest.fixture
async def two(idle: World) -> tuple[Controller, Controller]:
    """The leader and the other."""
    first = await idle.add_controller()
    await wait_until(lambda: first.leading, "the first to lead")
    return first, await idle.add_controller()


async def test_one_of_two_leads_and_both_know_it(two: tuple[Controller, Controller]) -> None:
    leader, other = two
    await wait_until(lambda: other.programming.status()["leader"] is None, "the other to know")
    assert leader.leading
    assert not other.leading


async def test_the_other_takes_over_when_the_leader_is_gone(
    idle: World, two: tuple[Controller, Controller]
) -> None:
    leader, other = two
    await leader.crash()

    await wait_until(lambda: other.leading, "the other to lead", timeout=HANDOVER_S)

    await idle.instances(await idle.subnet(), 3)
    await idle.until_active()
    await idle.assert_tables_equal()


async def test_one_that_may_not_lead_sees_who_does_and_that_nobody_does(idle: World) -> None:
    api = await idle.add_controller(lead=False)
    await wait_until(lambda: api.programming.status()["bus"] is None, "it to be there")
    assert "no leader is known" in (api.programming.status()["leader"] or "")

    leader = await idle.add_controller()
    await wait_until(lambda: api.programming.status()["leader"] is None, "it to see the leader")
    await idle.instances(await idle.subnet(), 3)
    await idle.until_active()

    await leader.crash()
    await wait_until(lambda: api.programming.status()["leader"] is not None, "it to miss one")
    assert not api.leading


async def test_who_does_not_lead_tells_how_the_fleet_is_doing(
    idle: World, two: tuple[Controller, Controller]
) -> None:
    """Though it reads no report before somebody asks."""
    leader, other = two
    host = idle.hosts[0]
    subnet = await idle.subnet()
    for failing in (None, "no such thing", None):
        host.failing = failing
        await idle.instances(subnet, 1, host)
        await wait_until(
            lambda: host.document is not None and host.ports() > 0, "the host to be told"
        )
        host.moved()

        def both_say(failing: str | None = failing) -> bool:
            told = [_host(each, host.name) for each in two]
            return all(
                one.live
                and one.applied_revision == one.revision
                and bool(one.failed) == bool(failing)
                for one in told
            )

        await wait_until(both_say, "both to tell")

    host.mute = True
    await wait_until(lambda: not _host(other, host.name).live, "it to be missed")

    await leader.crash()
    await wait_until(lambda: other.leading, "the other to lead", timeout=HANDOVER_S)
    assert not _host(other, host.name).live
    assert _host(other, idle.hosts[1].name).live


def _host(controller: Controller, name: str) -> HostStatus:
    status = controller.programming.fleet_status()
    return next(host for host in status.hosts if host.name == name)


async def test_hosts_run_what_changed_whoever_leads_and_whenever_they_begin(
    idle: World, two: tuple[Controller, Controller]
) -> None:
    leader, other = two
    subnet = await idle.subnet()
    await idle.instances(subnet, 40)
    await idle.until_active()
    for _ in range(3):
        await idle.instances(subnet, 2)
        await idle.until_active()
    told = [each.metric("programming_published_total", kind="host changes") for each in two]
    assert max(told) > 0

    await idle.instances(subnet, 2)
    await leader.crash()
    await wait_until(lambda: other.leading, "the other to lead", timeout=HANDOVER_S)
    await idle.instances(subnet, 2)
    await idle.until_active()
    for host in idle.hosts:
        before = host.document
        host.begin_again()
        await wait_until(lambda: host.document is not None, "its document")  # noqa: B023
        await idle.instances(subnet, 2)
        await idle.until_active()
        assert before is not None
        assert host.document is not None
        assert host.document.revision >= before.revision


async def test_somebody_leads_again_when_the_leaders_session_ends(
    idle: World, two: tuple[Controller, Controller]
) -> None:
    leader, other = two
    ended = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'achelous-leader' AND datname = current_database()"
        " AND pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted)"
    )
    async with idle.engine.connect() as connection:
        assert (await connection.execute(ended)).all() == [(True,)]

    await wait_until(
        lambda: leader.leading != other.leading, "one of them to lead", timeout=HANDOVER_S
    )
    await idle.instances(await idle.subnet(), 3)
    await idle.until_active()


async def test_a_term_that_the_database_fails_is_followed_by_another(
    idle: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its session may well live on: the term alone has met the outage."""
    controller = await idle.add_controller()
    await wait_until(lambda: controller.leading, "it to lead")

    async def refused(self: Observer) -> None:
        raise ConnectionRefusedError("as the engine says when PostgreSQL is gone")

    with monkeypatch.context() as patched:
        patched.setattr(Observer, "refresh", refused)
        await wait_until(lambda: not controller.leading, "the term to end")

    await wait_until(lambda: controller.leading, "it to lead again")
