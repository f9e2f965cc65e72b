"""What the leader has to know travels in the outbox, and rows cost less to write.

Six foreign keys go: each cost a look-up per row that was inserted. What they guarded is guarded by
locks that every writer takes anyway, of the VPC and of the host (decisions/0012).
"""

import sqlalchemy as sa
from alembic import op

revision = "0007_control"
down_revision = "0006_gateway_shards"
branch_labels = None
depends_on = None

_FOREIGN_KEYS = (
    ("instances", "project_id"),
    ("instances", "host_id"),
    ("vnics", "instance_id"),
    ("vnics", "subnet_id"),
    ("vnic_security_groups", "vnic_id"),
    ("vnic_security_groups", "security_group_id"),
)


def upgrade() -> None:
    op.add_column("outbox", sa.Column("pending", sa.LargeBinary()))
    op.add_column("outbox", sa.Column("vnics", sa.LargeBinary()))
    op.create_index(
        "outbox_host_id_idx",
        "outbox",
        ["host_id"],
        postgresql_where=sa.text("host_id IS NOT NULL"),
    )
    op.create_index(
        "outbox_routes_idx", "outbox", ["id"], postgresql_where=sa.text("kind = 'routes'")
    )
    for table, column in _FOREIGN_KEYS:
        op.drop_constraint(f"{table}_{column}_fkey", table)
    op.drop_constraint("vnics_mac_key", "vnics")
    op.drop_constraint("vnics_vpc_id_ip_key", "vnics")
    op.drop_index("vnics_vni_ip_idx", "vnics")
    op.create_unique_constraint("vnics_vni_ip_key", "vnics", ["vni", "ip"])
