"""VPCs that come and go while they are read."""

import numpy as np
import pytest

from achelous_shared.route_following.keeper import Forgotten, Keeper
from achelous_shared.route_following.plan import State
from achelous_shared.route_following.seams import NoJournal
from achelous_shared.route_following.stats import FollowStats
from achelous_shared.route_following.table import Changes, RouteTable
from achelous_shared.routes import ROUTE, RouteOp, Routes

VNI = 9


class Held:
    """A sink that remembers which addresses it was given last."""

    def __init__(self) -> None:
        self.ips: set[bytes] = set()

    async def apply(self, changes: Changes) -> None:
        self.ips -= {key["ip"].tobytes() for key in changes.removed}
        self.ips |= {key["ip"].tobytes() for key in changes.keys}

    async def settled(self) -> None:
        pass


def routes(*numbers: int) -> Routes:
    table = np.zeros(len(numbers), ROUTE)
    table["ip"][:, 15] = numbers
    table["op"], table["vtep"], table["revision"] = RouteOp.UPSERT, 7, 1
    return table


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def keeper(held: Held) -> Keeper:
    return Keeper(RouteTable(100), held, NoJournal(), FollowStats(), lambda _: None)


async def test_what_was_forgotten_while_it_was_read_leaves_nothing(
    keeper: Keeper, held: Held
) -> None:
    keeper.ask(VNI)
    vpc = keeper.begin(keeper.wanted.get_nowait())
    assert vpc is not None
    rows = await keeper.merge(vpc, 5, routes(1, 2))

    await keeper.forget(VNI)

    assert not held.ips
    assert not len(keeper.table)
    with pytest.raises(Forgotten):
        await keeper.merge(vpc, 5, routes(3))
    with pytest.raises(Forgotten):
        await keeper.finish(vpc, 5, rows)
    keeper.retry(vpc)
    assert keeper.wanted.empty()


async def test_one_that_comes_back_before_its_turn_is_read_once(keeper: Keeper, held: Held) -> None:
    keeper.ask(VNI)
    await keeper.forget(VNI)
    keeper.ask(VNI)
    vpc, again = (keeper.begin(keeper.wanted.get_nowait()) for _ in range(2))
    assert vpc is not None
    assert again is None

    rows = await keeper.merge(vpc, 5, routes(1))
    await keeper.finish(vpc, 5, rows)

    assert (vpc.state, vpc.revision) == (State.FOLLOWING, 5)
    assert len(held.ips) == 1
