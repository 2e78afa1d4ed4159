"""What operators see: when a worker counts as dead, which workflows drain, and who resumed them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds the columns."""
    op.add_column("worker_session", sa.Column("expiry_s", sa.Double, nullable=False, server_default=sa.text("30")))
    op.add_column("workflow_state", sa.Column("draining", sa.Boolean, nullable=False, server_default=sa.text("false")))
    op.add_column("workflow_state", sa.Column("resumed_at", sa.DateTime(timezone=True)))
    for name in ("resumed_by", "resume_reason"):
        op.add_column("workflow_state", sa.Column(name, sa.Text, nullable=False, server_default=sa.text("''")))
