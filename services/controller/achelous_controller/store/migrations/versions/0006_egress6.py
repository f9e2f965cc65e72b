"""Groups from before IPv6 let it out like IPv4; rules count towards a quota.

A new group has an egress rule for each family. One made before rules knew IPv6 lacks ::/0, and who
took that of IPv4 away meant none: only groups that still have theirs get one. Nor does a group that
was made after the first rule for ::/0: whoever removed that meant it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006_egress6"
down_revision = "0004_scale"
branch_labels = None
depends_on = None

_RULES = """
    WITH groups AS (
        INSERT INTO security_group_rules
            (id, security_group_id, egress, protocol, port_min, port_max, remote, allow, priority)
        SELECT gen_random_uuid(), g.id, true, 0, 0, 65535, '::/0', true, 1000
        FROM security_groups AS g
        WHERE EXISTS (
            SELECT FROM security_group_rules AS r
            WHERE r.security_group_id = g.id AND r.remote = '0.0.0.0/0'
            AND r.egress AND r.allow AND r.protocol = 0 AND r.priority = 1000
        ) AND NOT EXISTS (
            SELECT FROM security_group_rules AS r
            WHERE r.security_group_id = g.id AND r.egress AND family(r.remote) = 6
        ) AND g.created_at < (
            SELECT coalesce(min(r.created_at), 'infinity')
            FROM security_group_rules AS r WHERE r.remote = '::/0' AND r.egress
        )
        RETURNING security_group_id
    ), changed AS (
        UPDATE hosts SET revision = revision + 1
        WHERE id IN (
            SELECT v.host_id FROM vnics AS v
            JOIN vnic_security_groups AS m ON m.vnic_id = v.id
            JOIN groups ON groups.security_group_id = m.security_group_id
        )
        RETURNING id, revision
    )
    INSERT INTO outbox (kind, host_id, revision, created_at)
    SELECT 'host', id, revision, extract(epoch FROM now()) FROM changed
"""

_USED = """
    UPDATE usage SET security_group_rules = counted.rules
    FROM (
        SELECT g.project_id, count(*) AS rules
        FROM security_group_rules AS r JOIN security_groups AS g ON g.id = r.security_group_id
        GROUP BY g.project_id
    ) AS counted
    WHERE counted.project_id = usage.project_id
"""


def upgrade() -> None:
    op.execute(_RULES)
    rules = sa.Column("security_group_rules", sa.BigInteger(), server_default="0", nullable=False)
    op.add_column("usage", rules)
    op.execute(_USED)
