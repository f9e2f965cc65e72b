"""Gateways that serve some VPCs: those of the shards that they are given."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0006_gateway_shards"
down_revision = "0005_programming_model"
branch_labels = None
depends_on = None

_ALL = "{" + ",".join(map(str, range(64))) + "}"


def upgrade() -> None:
    op.add_column(
        "gateways",
        sa.Column("shards", ARRAY(sa.SmallInteger), server_default=_ALL, nullable=False),
    )
