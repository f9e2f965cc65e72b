"""Hosts may take no more vNICs. A controller of before places on them all the same."""

import sqlalchemy as sa
from alembic import op

revision = "0013_draining"
down_revision = "0012_reasons"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "hosts", sa.Column("draining", sa.Boolean(), server_default="false", nullable=False)
    )
