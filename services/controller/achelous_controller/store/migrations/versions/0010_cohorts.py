"""Who waits for routes is in the outbox by cohort, and not by instance.

A leader of before reads another column, and so finds by its look at the database what it is not
told; a leader of now finds likewise what was written before.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010_cohorts"
down_revision = "0008_egress6"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("outbox", sa.Column("cohorts", sa.LargeBinary()))
