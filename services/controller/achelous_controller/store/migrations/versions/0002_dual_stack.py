"""Dual stack: IPv6 networks of subnets and addresses of vNICs, and what DHCP tells guests."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, CIDR, INET

revision = "0002_dual_stack"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("subnets", sa.Column("cidr6", CIDR()))
    op.add_column("subnets", sa.Column("gateway_ip6", INET()))
    op.add_column("subnets", sa.Column("next_ip6", INET()))
    op.add_column(
        "subnets", sa.Column("dns_servers", ARRAY(INET()), server_default="{}", nullable=False)
    )
    op.add_column(
        "subnets", sa.Column("dhcp_lease_s", sa.Integer(), server_default="3600", nullable=False)
    )
    op.add_column("vnics", sa.Column("ip6", INET()))
    given = sa.text("ip6 IS NOT NULL")
    op.create_index(
        "vnics_vni_ip6_idx", "vnics", ["vni", "ip6"], unique=True, postgresql_where=given
    )
    op.create_index(
        "vnics_subnet_id_ip6_idx", "vnics", ["subnet_id", "ip6"], postgresql_where=given
    )
