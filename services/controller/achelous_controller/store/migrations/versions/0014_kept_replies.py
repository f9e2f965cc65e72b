"""Replies are kept without a look-up of the token: that was a fifth of what a creation with an
Idempotency-Key costs.

A deleted token's replies are nobody's, and gone after their lifetime.
"""

from alembic import op

revision = "0014_kept_replies"
down_revision = "0013_draining"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint("idempotency_keys_token_id_fkey", "idempotency_keys")
