"""Single creations and deletions of instances, those that come together in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Annotated, Final
from uuid import UUID

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from achelous_controller.api import replies
from achelous_controller.api.creation import reply_of
from achelous_controller.api.models.instances import Instance
from achelous_controller.domain import instances as domain
from achelous_controller.domain.instances import InstanceSpec
from achelous_controller.domain.precondition import Precondition
from achelous_controller.domain.principal import Principal
from achelous_controller.store import provisioning
from achelous_controller.store.database import Database
from achelous_controller.store.gathering import Gatherer, Lanes, together
from achelous_controller.store.idempotency import Claim
from achelous_controller.store.withdrawal import Withdrawal, withdraw

_GROUP: Final = 256
"""Changes of one transaction: it holds its VPC for some 50 ms."""


@dataclass(frozen=True, slots=True)
class Order:
    """A creation. ``claim``: its Idempotency-Key, if it has one."""

    spec: InstanceSpec
    accepted_at: datetime
    claim: Claim | None


@dataclass(frozen=True, slots=True)
class _Lane:
    """Creations that share a transaction: those of one caller in the same subnets."""

    caller: Principal
    subnet_ids: frozenset[UUID]


class InstanceWrites:
    """Carries out single changes, grouped by who asks and what they touch.

    Each is whole or not at all by itself, and has the error that it would have had alone.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._keys: set[tuple[UUID, str]] = set()
        self._creations: Lanes[_Lane, Order, Response] = Lanes(
            lambda lane: Gatherer(partial(self._create, lane.caller), _GROUP)
        )
        self._deletions: Lanes[UUID | None, Withdrawal, domain.Instance] = Lanes(
            lambda project_id: Gatherer(
                partial(self._delete, project_id), _GROUP, apart=lambda each: each.instance_id
            )
        )

    async def create(
        self, caller: Principal, spec: InstanceSpec, accepted_at: datetime, claim: Claim | None
    ) -> Response:
        """Make an instance, or repeat the reply of the time when it was made."""
        lane = _Lane(caller, frozenset(vnic.subnet_id for vnic in spec.vnics))
        order = Order(spec, accepted_at, claim)
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

    async def delete(
        self, caller: Principal, instance_id: UUID, match: Precondition, accepted_at: datetime
    ) -> domain.Instance:
        """Withdraw an instance; as it is then."""
        wanted = Withdrawal(instance_id, match, accepted_at)
        return await self._deletions.submit(caller.project_id, wanted)

    async def _create(
        self, caller: Principal, orders: Sequence[Order]
    ) -> list[Response | BaseException]:
        async def work(connection: AsyncConnection, some: Sequence[Order]) -> list[Response]:
            return await _create(connection, caller, some)

        return await together(self._database, orders, work)

    async def _delete(
        self, project_id: UUID | None, wanted: Sequence[Withdrawal]
    ) -> list[domain.Instance | BaseException]:
        async def work(
            connection: AsyncConnection, some: Sequence[Withdrawal]
        ) -> list[domain.Instance]:
            return await withdraw(connection, project_id, some)

        return await together(self._database, wanted, work)


async def _create(
    connection: AsyncConnection, caller: Principal, orders: Sequence[Order]
) -> list[Response]:
    earlier: dict[int, Response] = {}
    for number, order in enumerate(orders):
        if order.claim is not None and (reply := await order.claim.take(connection)) is not None:
            earlier[number] = Response(reply.body, reply.status, reply.headers)
    due = [order for number, order in enumerate(orders) if number not in earlier]
    made = iter(
        await provisioning.create(
            connection,
            caller.project_id,
            [order.spec for order in due],
            [order.accepted_at for order in due],
        )
        if due
        else ()
    )
    responses = []
    for number, order in enumerate(orders):
        response = earlier.get(number)
        if response is None:
            response = _created(next(made), caller)
            if order.claim is not None:
                await order.claim.keep(connection, reply_of(response))
        responses.append(response)
    return responses


def _created(instance: domain.Instance, caller: Principal) -> Response:
    view = Instance.of(instance, show_host=caller.operator)
    return replies.resource(view, 201, f"/v1/instances/{view.id}")


async def _writes(request: Request) -> InstanceWrites:
    writes: InstanceWrites = request.app.state.instance_writes
    return writes


Writes = Annotated[InstanceWrites, Depends(_writes)]
