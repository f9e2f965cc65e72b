"""No vNIC has more rules of one direction, of all its groups together, than its host can run."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, bindparam, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import Boolean, Uuid

from achelous_controller.domain.errors import Conflict, FieldError
from achelous_controller.domain.identities import Groups
from achelous_controller.domain.rules import MAX_GROUPS, MAX_RULES
from achelous_controller.store.references import refuse
from achelous_controller.store.schema import security_group_rules, security_groups

_NAMES: Final = {False: "ingress", True: "egress"}

_MOST: Final = text("""
    SELECT max(total) FROM (
        SELECT count(*) AS total
        FROM vnic_security_groups AS m
        JOIN security_group_rules AS r ON r.security_group_id = m.security_group_id
        WHERE r.egress = :egress AND m.vnic_id IN (
            SELECT vnic_id FROM vnic_security_groups WHERE security_group_id = :group
        )
        GROUP BY m.vnic_id
    ) AS totals
""").bindparams(bindparam("egress", type_=Boolean), bindparam("group", type_=Uuid))

Counts = Mapping[bool, Mapping[UUID, int]]
"""Egress or not -> group -> its rules."""


async def one_more_must_fit(
    connection: AsyncConnection, vpc_id: UUID, group_id: UUID, *, egress: bool
) -> None:
    """Raise `Conflict` if one more rule in the group were too many for it or for a member."""
    inside = select(security_groups.c.id).where(security_groups.c.vpc_id == vpc_id)
    counts = (await _counts(connection, inside))[egress]
    own = counts.get(group_id, 0)
    if own >= MAX_RULES:
        raise Conflict(
            f"the security group has {own} {_NAMES[egress]} rules, the most that it can have"
        )
    others = sorted((count for group, count in counts.items() if group != group_id), reverse=True)
    if own + sum(others[: MAX_GROUPS - 1]) < MAX_RULES:
        return
    values = {"egress": egress, "group": group_id}
    most: int = (await connection.execute(_MOST, values)).scalar_one() or 0
    if most >= MAX_RULES:
        raise Conflict(
            f"a vNIC in the security group has {most} {_NAMES[egress]} rules in all its groups"
            " together, the most that it can have"
        )


async def must_fit(connection: AsyncConnection, sets: Mapping[Groups, str]) -> None:
    """Raise `Conflict` for sets of groups with too many rules; the values name their fields."""
    groups = {group for found in sets for group in found}
    fields = list(sets.values())
    check(list(sets), await _counts(connection, groups), fields.__getitem__)


def check(sets: Sequence[Groups], counts: Counts, field: Callable[[int], str]) -> None:
    """Like `must_fit`, with the rules counted; ``field``: of a set, by its index."""
    refuse(
        [
            FieldError(
                field(index),
                [str(group) for group in found],
                f"the groups have {total} {_NAMES[egress]} rules together, at most {MAX_RULES} are"
                " possible",
            )
            for index, found in enumerate(sets)
            for egress, of in counts.items()
            if (total := sum(of.get(group, 0) for group in found)) > MAX_RULES
        ],
        Conflict,
    )


async def _counts(connection: AsyncConnection, groups: Collection[UUID] | Select[Any]) -> Counts:
    rules = security_group_rules.c
    query = (
        select(rules.security_group_id, rules.egress, func.count().label("count"))
        .where(rules.security_group_id.in_(groups))
        .group_by(rules.security_group_id, rules.egress)
    )
    found: dict[bool, dict[UUID, int]] = defaultdict(dict)
    for group, egress, count in await connection.execute(query):
        found[egress][group] = count
    return found
