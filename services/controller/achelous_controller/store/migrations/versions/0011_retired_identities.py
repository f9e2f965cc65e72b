"""Numbers of identities rest before they are given again.

Numbers given up before were taken from their sets without hosts being told: hosts with rules that
name groups are told now, and the numbers rest. A controller of before sees none that rests, and
gives one away if its search comes by: it goes round all 65,535 first.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011_retired_identities"
down_revision = "0010_cohorts"
branch_labels = None
depends_on = None

_LOCK = """
    LOCK TABLE vpcs IN EXCLUSIVE MODE;
    LOCK TABLE hosts IN ACCESS EXCLUSIVE MODE;
    LOCK TABLE instances IN SHARE MODE
"""
"""For this and the next revisions, which run in one transaction: in the order in which creations
lock, so that none of another controller waits for this one while this one waits for it."""

_RETIRE = """
    INSERT INTO retired_identities (vpc_id, number, retired_at)
    SELECT v.id, n, now() FROM vpcs AS v, generate_series(1, v.next_identity - 1) AS n
    WHERE NOT EXISTS (SELECT FROM identities AS i WHERE i.vpc_id = v.id AND i.number = n)
"""
_TELL = """
    WITH concerned AS (
        SELECT id FROM hosts WHERE id IN (
            SELECT v.host_id FROM security_group_rules AS r
            JOIN security_groups AS g ON g.id = r.security_group_id
            JOIN vnic_security_groups AS l ON l.security_group_id = g.id
            JOIN vnics AS v ON v.id = l.vnic_id
            WHERE r.remote_group_id IS NOT NULL
                AND g.vpc_id IN (SELECT vpc_id FROM retired_identities)
        )
        ORDER BY id FOR UPDATE
    ), changed AS (
        UPDATE hosts SET revision = revision + 1 WHERE id IN (SELECT id FROM concerned)
        RETURNING id, revision
    )
    INSERT INTO outbox (kind, host_id, revision, created_at)
    SELECT 'host', id, revision, extract(epoch FROM clock_timestamp()) FROM changed
    RETURNING pg_notify('achelous_outbox', '')
"""


def upgrade() -> None:
    for statement in _LOCK.split(";"):
        op.execute(statement)
    op.create_table(
        "retired_identities",
        sa.Column("vpc_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["vpc_id"], ["vpcs.id"], name="retired_identities_vpc_id_fkey", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("vpc_id", "number", name="retired_identities_pkey"),
    )
    op.create_index("retired_identities_retired_at_idx", "retired_identities", ["retired_at"])
    op.execute(_RETIRE)
    op.execute(_TELL)
