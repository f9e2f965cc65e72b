"""The foundation: projects to vNICs, fleet, outbox."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE SEQUENCE vni_seq START WITH 4096 MAXVALUE 16777215")
    op.execute("CREATE SEQUENCE mac_seq START WITH 1 MAXVALUE 1099511627775")
    op.create_table(
        "fleet",
        sa.Column("id", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id", name=op.f("fleet_single_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("fleet_pkey")),
    )
    op.create_table(
        "gateways",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("vtep", postgresql.INET(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("gateways_pkey")),
        sa.UniqueConstraint("name", name=op.f("gateways_name_key")),
        sa.UniqueConstraint("vtep", name=op.f("gateways_vtep_key")),
    )
    op.create_table(
        "hosts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("vtep", postgresql.INET(), nullable=False),
        sa.Column("capacity", sa.Integer(), nullable=False),
        sa.Column("vnic_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("revision", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.CheckConstraint(
            "vnic_count >= 0 AND vnic_count <= capacity", name=op.f("hosts_capacity_check")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("hosts_pkey")),
        sa.UniqueConstraint("name", name=op.f("hosts_name_key")),
        sa.UniqueConstraint("vtep", name=op.f("hosts_vtep_key")),
    )
    op.create_index(op.f("hosts_vnic_count_id_idx"), "hosts", ["vnic_count", "id"], unique=False)
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("vni", sa.Integer(), nullable=True),
        sa.Column("host_id", sa.Uuid(), nullable=True),
        sa.Column("base", sa.BigInteger(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("entries", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("outbox_pkey")),
    )
    op.create_table(
        "projects",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("quotas", postgresql.JSONB(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("projects_pkey")),
        sa.UniqueConstraint("name", name=op.f("projects_name_key")),
    )
    op.create_table(
        "instances",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("host_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("host_revision", sa.BigInteger(), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("committed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("gateways_applied_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("host_applied_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("active_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("instances_host_id_fkey")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("instances_project_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("instances_pkey")),
    )
    op.create_index(op.f("instances_host_id_id_idx"), "instances", ["host_id", "id"], unique=False)
    op.create_index(
        "instances_pending_idx",
        "instances",
        ["id"],
        unique=False,
        postgresql_where="state <> 'ACTIVE'",
    )
    op.create_index(
        op.f("instances_project_id_id_idx"), "instances", ["project_id", "id"], unique=False
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("tokens_project_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("tokens_pkey")),
        sa.UniqueConstraint("hash", name=op.f("tokens_hash_key")),
    )
    op.create_index(op.f("tokens_project_id_idx"), "tokens", ["project_id"], unique=False)
    op.create_table(
        "usage",
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("vpcs", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("subnets", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("security_groups", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("instances", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("vnics", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("usage_project_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", name=op.f("usage_pkey")),
    )
    op.create_table(
        "vpcs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("vni", sa.Integer(), nullable=False),
        sa.Column("revision", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("vpcs_project_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("vpcs_pkey")),
        sa.UniqueConstraint("project_id", "name", name=op.f("vpcs_project_id_name_key")),
        sa.UniqueConstraint("vni", name=op.f("vpcs_vni_key")),
    )
    op.create_index(op.f("vpcs_project_id_idx"), "vpcs", ["project_id"], unique=False)
    op.create_table(
        "idempotency_keys",
        sa.Column("token_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("headers", postgresql.JSONB(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["token_id"],
            ["tokens.id"],
            name=op.f("idempotency_keys_token_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("token_id", "key", name=op.f("idempotency_keys_pkey")),
    )
    op.create_table(
        "security_groups",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("vpc_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("security_groups_project_id_fkey")
        ),
        sa.ForeignKeyConstraint(["vpc_id"], ["vpcs.id"], name=op.f("security_groups_vpc_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("security_groups_pkey")),
        sa.UniqueConstraint("vpc_id", "name", name=op.f("security_groups_vpc_id_name_key")),
    )
    op.create_index(
        op.f("security_groups_project_id_idx"), "security_groups", ["project_id"], unique=False
    )
    op.create_table(
        "subnets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("vpc_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("cidr", postgresql.CIDR(), nullable=False),
        sa.Column("gateway_ip", postgresql.INET(), nullable=False),
        sa.Column("next_ip", postgresql.INET(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("subnets_project_id_fkey")
        ),
        sa.ForeignKeyConstraint(["vpc_id"], ["vpcs.id"], name=op.f("subnets_vpc_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("subnets_pkey")),
        sa.UniqueConstraint("vpc_id", "cidr", name=op.f("subnets_vpc_id_cidr_key")),
        sa.UniqueConstraint("vpc_id", "name", name=op.f("subnets_vpc_id_name_key")),
    )
    op.create_index(op.f("subnets_project_id_idx"), "subnets", ["project_id"], unique=False)
    op.create_table(
        "security_group_rules",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("security_group_id", sa.Uuid(), nullable=False),
        sa.Column("egress", sa.Boolean(), nullable=False),
        sa.Column("protocol", sa.SmallInteger(), nullable=False),
        sa.Column("port_min", sa.Integer(), nullable=False),
        sa.Column("port_max", sa.Integer(), nullable=False),
        sa.Column("remote", postgresql.CIDR(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["security_group_id"],
            ["security_groups.id"],
            name=op.f("security_group_rules_security_group_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("security_group_rules_pkey")),
    )
    op.create_index(
        op.f("security_group_rules_security_group_id_idx"),
        "security_group_rules",
        ["security_group_id"],
        unique=False,
    )
    op.create_table(
        "vnics",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("subnet_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("vpc_id", sa.Uuid(), nullable=False),
        sa.Column("host_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        sa.Column("ip", postgresql.INET(), nullable=False),
        sa.Column("mac", sa.BigInteger(), nullable=False),
        sa.Column("vni", sa.Integer(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("withdrawn", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("vnics_instance_id_fkey")
        ),
        sa.ForeignKeyConstraint(["subnet_id"], ["subnets.id"], name=op.f("vnics_subnet_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("vnics_pkey")),
        sa.UniqueConstraint("mac", name=op.f("vnics_mac_key")),
        sa.UniqueConstraint("subnet_id", "ip", name=op.f("vnics_subnet_id_ip_key")),
        sa.UniqueConstraint("vpc_id", "ip", name=op.f("vnics_vpc_id_ip_key")),
    )
    op.create_index(op.f("vnics_host_id_idx"), "vnics", ["host_id"], unique=False)
    op.create_index(op.f("vnics_instance_id_idx"), "vnics", ["instance_id"], unique=False)
    op.create_index(op.f("vnics_project_id_idx"), "vnics", ["project_id"], unique=False)
    op.create_index(op.f("vnics_vni_ip_idx"), "vnics", ["vni", "ip"], unique=False)
    op.create_table(
        "vnic_security_groups",
        sa.Column("vnic_id", sa.Uuid(), nullable=False),
        sa.Column("security_group_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["security_group_id"],
            ["security_groups.id"],
            name=op.f("vnic_security_groups_security_group_id_fkey"),
        ),
        sa.ForeignKeyConstraint(
            ["vnic_id"],
            ["vnics.id"],
            name=op.f("vnic_security_groups_vnic_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "vnic_id", "security_group_id", name=op.f("vnic_security_groups_pkey")
        ),
    )
    op.create_index(
        op.f("vnic_security_groups_security_group_id_idx"),
        "vnic_security_groups",
        ["security_group_id"],
        unique=False,
    )
    op.execute("INSERT INTO fleet (id, revision) VALUES (true, 0)")
