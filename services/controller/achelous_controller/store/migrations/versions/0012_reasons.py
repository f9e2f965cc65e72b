"""Instances that are late, and say why, have an index: those in ERROR are listed from it.

One that was never late is not in it, so neither a creation nor becoming ACTIVE writes to it. A
controller of before does not know of it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012_reasons"
down_revision = "0011_retired_identities"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "instances_reason_idx",
        "instances",
        ["id"],
        postgresql_where=sa.text("reason IS NOT NULL"),
    )
