"""How hosts get the routes of a VPC: on demand, as those that exist, or all of them ahead."""

import sqlalchemy as sa
from alembic import op

revision = "0005_programming_model"
down_revision = "0004_scale"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "vpcs", sa.Column("programming_model", sa.Text(), server_default="alm", nullable=False)
    )
