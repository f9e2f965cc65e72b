"""Lists of millions of rows: an index for each filter, ordered as pages are where that matters."""

import sqlalchemy as sa
from alembic import op

revision = "0004_scale"
down_revision = "0003_security_groups"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("instances_name_id_idx", "instances", ["name", "id"])
    op.create_index("instances_kind_id_idx", "instances", ["kind", "id"])
    op.drop_index("instances_pending_idx", "instances")
    op.create_index(
        "instances_pending_idx",
        "instances",
        ["state", "id"],
        postgresql_where=sa.text("state <> 'ACTIVE'"),
    )
    op.create_index("vnics_vpc_id_instance_id_idx", "vnics", ["vpc_id", "instance_id"])
    op.drop_index("vnics_project_id_idx", "vnics")
    op.create_index("vnics_project_id_id_idx", "vnics", ["project_id", "id"])
