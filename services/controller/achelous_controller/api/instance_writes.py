"""Creations, moves and deletions; single ones that come together share a transaction."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Final, NamedTuple
from uuid import UUID
from weakref import WeakValueDictionary

import msgspec
import numpy as np
import numpy.typing as npt
from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from achelous_controller.api import replies
from achelous_controller.api.creation import carry_out, reply_of, response_of
from achelous_controller.api.rendering import BatchView, InstanceView, instance_view, made_views
from achelous_controller.api.turns import Turns
from achelous_controller.domain import instances as domain
from achelous_controller.domain.errors import FieldError, Forbidden
from achelous_controller.domain.instances import InstanceSpec, Wanted
from achelous_controller.domain.precondition import Precondition
from achelous_controller.domain.principal import Principal
from achelous_controller.store import idempotency, provisioning
from achelous_controller.store.allocation import Macs
from achelous_controller.store.changes import Change
from achelous_controller.store.database import Database, despite_deadlocks
from achelous_controller.store.gathering import Gatherer, Lanes, together
from achelous_controller.store.idempotency import Claim
from achelous_controller.store.moves import Move, move
from achelous_controller.store.provisioning import Made, Seen
from achelous_controller.store.withdrawal import withdraw

_ALONE: Final = ""
_IN_BATCH: Final = "instances[{}]."
"""Where an instance stands in its request."""

_REST_S: Final = 0.005
"""After changes that came together: a tenth of the CPU time of a change under load."""
_GROUP: Final = 256
"""Changes of one transaction: it holds its VPC for some 50 ms."""


class Order(msgspec.Struct, frozen=True):
    """A creation. ``claim``: its Idempotency-Key, if it has one; ``macs``: of its vNICs."""

    spec: InstanceSpec
    accepted_at: datetime
    claim: Claim | None
    macs: npt.NDArray[np.uint64]


class _Lane(NamedTuple):
    """Creations that share a transaction: those of one caller in the same subnets."""

    caller: Principal
    subnet_ids: frozenset[UUID]


class InstanceWrites:
    """Carries out single changes, grouped by who asks and what they touch, and batches.

    Each is whole or not at all by itself, and has the error that it would have had alone.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._macs = Macs(database)
        self._keys: set[tuple[UUID, str]] = set()
        # the next one is read meanwhile; in a transaction it would wait for the lock of the VPC
        self._batches = Turns(at_once=1, in_line=32, seconds=60)
        self._locks: WeakValueDictionary[UUID | None, asyncio.Lock] = WeakValueDictionary()
        self._creations: Lanes[_Lane, Order, Response] = Lanes(
            lambda lane: Gatherer(
                partial(self._create, lane.caller),
                _GROUP,
                turn=self._turn(lane.caller.project_id),
                rest_s=_REST_S,
            )
        )
        self._deletions: Lanes[UUID | None, Change, domain.Instance] = Lanes(
            lambda project_id: Gatherer(
                partial(self._delete, project_id),
                _GROUP,
                _instance_of,
                self._turn(project_id),
                _REST_S,
            )
        )
        self._moves: Gatherer[Move, domain.Instance] = Gatherer(
            self._move, _GROUP, _instance_of, self._turn(None), _REST_S
        )

    def _turn(self, project_id: UUID | None) -> asyncio.Lock:
        """Of a project's callers, or of the operators: their changes are mostly of the same VPCs,
        whose locks they would wait for one by one, in small groups."""
        return self._locks.setdefault(project_id, asyncio.Lock())

    async def create(
        self, caller: Principal, spec: InstanceSpec, accepted_at: datetime, claim: Claim | None
    ) -> Response:
        """Make an instance, or repeat the reply of the time when it was made."""
        if not caller.operator:
            _check_allowed(Wanted([spec], [accepted_at], _ALONE))
        lane = _Lane(caller, frozenset([vnic.subnet_id for vnic in spec.vnics]))
        order = Order(spec, accepted_at, claim, await self._macs.take(len(spec.vnics)))
        if claim is None:
            return await self._creations.submit(lane, order)
        key = (claim.token_id, claim.key)
        if key in self._keys:  # the lock in the database does not part those of one transaction
            raise claim.busy()
        self._keys.add(key)
        try:
            return await self._creations.submit(lane, order)
        finally:
            self._keys.discard(key)

    async def create_batch(
        self,
        caller: Principal,
        specs: Sequence[InstanceSpec],
        accepted_at: datetime,
        claim: Claim | None,
    ) -> Response:
        """Make all instances or none, or repeat the reply of the time when they were made."""
        wanted = Wanted(specs, [accepted_at] * len(specs), _IN_BATCH)
        if not caller.operator:
            _check_allowed(wanted)
        first = provisioning.locking(caller.project_id, wanted)
        macs = await self._macs.take(sum([len(spec.vnics) for spec in specs]))

        def reply(made: Made) -> Response:
            views = made_views(made, show_host=caller.operator)
            return replies.rendered_batch(BatchView(views))

        async def make(connection: AsyncConnection) -> Made:
            seen = await provisioning.look(connection, wanted)
            made = await provisioning.make(connection, caller.project_id, seen, macs)
            await provisioning.write(connection, made)
            return made

        async def work(connection: AsyncConnection) -> Response:
            return reply(await make(connection))

        async def transaction() -> Made:
            async with self._database.write(*first) as connection:
                return await make(connection)

        async with self._batches.turn():
            if claim is not None:
                return await despite_deadlocks(
                    partial(carry_out, self._database, claim, work, *first)
                )
            made = await despite_deadlocks(transaction)
        # no reply is kept with what is made: the next batch need not wait for it
        return reply(made)

    async def delete(
        self, caller: Principal, instance_id: UUID, match: Precondition, accepted_at: datetime
    ) -> Response:
        """Withdraw an instance; as it is then."""
        wanted = Change(instance_id, match, accepted_at)
        left = await self._deletions.submit(caller.project_id, wanted)
        return replies.rendered(instance_view(left, show_host=caller.operator), 202)

    async def move(
        self,
        caller: Principal,
        instance_id: UUID,
        match: Precondition,
        accepted_at: datetime,
        host_id: UUID,
    ) -> Response:
        """Give an instance another host; as it is then."""
        if not caller.operator:
            raise _host_named([FieldError("host_id", str(host_id), "leave it out")])
        moved = await self._moves.submit(Move(instance_id, match, accepted_at, host_id))
        return replies.rendered(instance_view(moved, show_host=True))

    async def _create(
        self, caller: Principal, orders: Sequence[Order]
    ) -> list[Response | BaseException]:
        async def transaction(some: Sequence[Order]) -> list[Response]:
            wanted = _wanted(some)
            claims = [order.claim for order in some if order.claim is not None]
            first = provisioning.locking(caller.project_id, wanted)
            async with self._database.write(*idempotency.locking(claims), *first) as connection:
                seen = await provisioning.look(connection, wanted, claims)
                return await _create(connection, caller, some, claims, seen)

        return await together(orders, transaction)

    async def _delete(
        self, project_id: UUID | None, wanted: Sequence[Change]
    ) -> list[domain.Instance | BaseException]:
        return await together(wanted, partial(withdraw, self._database, project_id))

    async def _move(self, wanted: Sequence[Move]) -> list[domain.Instance | BaseException]:
        return await together(wanted, partial(move, self._database))


def _instance_of(change: Change) -> UUID:
    return change.instance_id


def _host_named(errors: Sequence[FieldError]) -> Forbidden:
    return Forbidden("only operators may name a host", errors)


def _check_allowed(wanted: Wanted) -> None:
    """Of a project's caller."""
    message = "leave it out: a host is chosen"
    errors = [
        FieldError(wanted.field(index, "host_id"), str(spec.host_id), message)
        for index, spec in enumerate(wanted.specs)
        if spec.host_id is not None
    ]
    if errors:
        raise _host_named(errors)


async def _create(
    connection: AsyncConnection,
    caller: Principal,
    orders: Sequence[Order],
    claims: Sequence[Claim],
    seen: Seen,
) -> list[Response]:
    """``claims``: of those that have one; ``seen``: what was read for all."""
    kept = iter(idempotency.replies(claims, seen.found.get(idempotency.KEPT, ())))
    before = [None if order.claim is None else next(kept) for order in orders]
    due = [order for order, reply in zip(orders, before, strict=True) if reply is None]
    if due and len(due) < len(orders):
        seen = await provisioning.look(connection, _wanted(due))
    made = iter(await _make(connection, caller, due, seen) if due else ())
    return [next(made) if reply is None else response_of(reply) for reply in before]


async def _make(
    connection: AsyncConnection, caller: Principal, orders: Sequence[Order], seen: Seen
) -> list[Response]:
    """Make the instances, and keep the replies to those with a key."""
    macs = np.concatenate([order.macs for order in orders])
    made = await provisioning.make(connection, caller.project_id, seen, macs)
    responses = [_created(view) for view in made_views(made, show_host=caller.operator)]
    kept = [
        (order.claim, reply_of(response))
        for order, response in zip(orders, responses, strict=True)
        if order.claim is not None
    ]
    await provisioning.write(connection, made, [idempotency.keeping(kept)] if kept else [])
    return responses


def _wanted(orders: Sequence[Order]) -> Wanted:
    specs, accepted = [order.spec for order in orders], [order.accepted_at for order in orders]
    return Wanted(specs, accepted, _ALONE)


def _created(view: InstanceView) -> Response:
    return replies.rendered(view, 201, f"/v1/instances/{view.id}")


async def _writes(request: Request) -> InstanceWrites:
    writes: InstanceWrites = request.app.state.instance_writes
    return writes


Writes = Annotated[InstanceWrites, Depends(_writes)]
