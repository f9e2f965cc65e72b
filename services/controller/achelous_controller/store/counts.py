"""How many there are of everything, as counted where it changes: no large table is read whole."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.instance_state import InstanceState

# one statement: what projects use and who is pending as of one moment. Who is DELETING is used no
# more, though its rows are there
COUNTS: Final = text("""
    WITH waiting AS MATERIALIZED (
        SELECT count(*) FILTER (WHERE state = 'BUILDING') AS building,
            count(*) FILTER (WHERE state = 'ERROR') AS error,
            count(*) FILTER (WHERE state = 'DELETING') AS deleting,
            array_agg(id) FILTER (WHERE state = 'DELETING') AS leaving
        FROM instances WHERE id = ANY (ARRAY(SELECT instance_id FROM pending))
    ), used AS (
        SELECT coalesce(sum(instances), 0)::bigint AS instances,
            coalesce(sum(vnics), 0)::bigint AS vnics
        FROM usage
    )
    SELECT used.instances - building - error AS active, building, error, deleting,
        used.vnics + (
            SELECT count(*) FROM vnics
            WHERE instance_id = ANY ((SELECT leaving FROM waiting)::uuid[])
        ) AS vnics,
        (SELECT count(*) FROM projects) AS projects,
        (SELECT count(*) FROM vpcs) AS vpcs,
        (SELECT count(*) FROM hosts) AS hosts,
        (SELECT count(*) FROM gateways) AS gateways
    FROM used, waiting
""")
"""Reads of `instances` and `vnics` those alone that are pending and DELETING."""

_OBJECTS: Final = ("projects", "vpcs", "vnics", "hosts", "gateways")


@dataclass(frozen=True, slots=True)
class Counts:
    """Exact as of one moment. ``objects``: rows of each other table, by its name."""

    instances: dict[InstanceState, int]
    objects: dict[str, int]


async def read(connection: AsyncConnection) -> Counts:
    """It takes some 1 us for each instance that is not ACTIVE, however many are."""
    row = (await connection.execute(COUNTS)).one()
    instances = {state: getattr(row, state.lower()) for state in InstanceState}
    objects = {name: getattr(row, name) for name in _OBJECTS}
    return Counts(instances, objects)
