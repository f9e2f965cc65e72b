"""Who waits for routes is in the outbox by cohort, and who is not ACTIVE in a table of its own.

A leader of before reads another column, and so finds by its look at the database what it is not
told; a leader of now finds likewise what was written before.

Of `instances` no index names the state any more, and half of each new page stays free: a row that
changes its state stays on its page, and five indexes are left alone.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010_cohorts"
down_revision = "0009_creation"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("outbox", sa.Column("cohorts", sa.LargeBinary()))
    op.execute("ALTER TABLE outbox ALTER COLUMN cohorts SET STORAGE EXTERNAL")
    op.create_table(
        "pending",
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("host_id", sa.Uuid(), nullable=False),
        sa.Column("host_revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("instance_id", name="pending_pkey"),
    )
    op.execute(
        "INSERT INTO pending (instance_id, host_id, host_revision)"
        " SELECT id, host_id, host_revision FROM instances WHERE state <> 'ACTIVE'"
    )
    op.drop_index("instances_pending_idx", "instances")
    op.execute("ALTER TABLE instances SET (fillfactor = 45)")
