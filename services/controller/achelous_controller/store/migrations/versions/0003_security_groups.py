"""Security groups: deny and priority, rules that name a group, identities of sets of groups."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003_security_groups"
down_revision = "0002_dual_stack"
branch_labels = None
depends_on = None


def upgrade() -> None:
    rules = "security_group_rules"
    op.add_column(rules, sa.Column("priority", sa.Integer(), server_default="1000", nullable=False))
    op.add_column(rules, sa.Column("allow", sa.Boolean(), server_default="true", nullable=False))
    op.add_column(rules, sa.Column("remote_group_id", sa.Uuid(), nullable=True))
    op.alter_column(rules, "remote", nullable=True)
    op.create_foreign_key(
        op.f("security_group_rules_remote_group_id_fkey"),
        rules,
        "security_groups",
        ["remote_group_id"],
        ["id"],
        ondelete="CASCADE",
    )
    op.create_index(op.f("security_group_rules_remote_group_id_idx"), rules, ["remote_group_id"])
    op.create_check_constraint(
        op.f("security_group_rules_remote_check"),
        rules,
        "remote IS NULL <> (remote_group_id IS NULL)",
    )
    op.add_column("vnics", sa.Column("identity", sa.Integer(), server_default="0", nullable=False))
    op.add_column(
        "vpcs", sa.Column("next_identity", sa.Integer(), server_default="1", nullable=False)
    )
    op.create_table(
        "identities",
        sa.Column("vpc_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("groups", postgresql.ARRAY(sa.Uuid()), nullable=False),
        sa.ForeignKeyConstraint(
            ["vpc_id"], ["vpcs.id"], name=op.f("identities_vpc_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("vpc_id", "number", name=op.f("identities_pkey")),
        sa.UniqueConstraint("vpc_id", "groups", name=op.f("identities_vpc_id_groups_key")),
    )
