"""One message locks all that a change of instances takes part in.

Each statement of a function in PL/pgSQL sees what was committed while the one before it waited.
"""

from alembic import op

revision = "0012_locks"
down_revision = "0010_cohorts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE FUNCTION lock_instances(instance_ids uuid[], host_ids uuid[]) RETURNS void
        LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM FROM vpcs
            WHERE id IN (SELECT vpc_id FROM vnics WHERE instance_id = ANY (instance_ids))
            ORDER BY id FOR UPDATE;
            PERFORM FROM instances WHERE id = ANY (instance_ids) ORDER BY id FOR UPDATE;
            PERFORM FROM hosts
            WHERE id = ANY (host_ids || ARRAY(
                SELECT host_id FROM instances WHERE id = ANY (instance_ids)
            ))
            ORDER BY id FOR UPDATE;
        END
        $$
    """)
