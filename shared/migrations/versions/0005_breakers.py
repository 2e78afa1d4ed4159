"""What opens the breaker of an external API, and when it is probed; leases say what is held, and nothing of wishes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Adds the columns, and drops the one that nothing uses."""
    op.add_column("api_state", sa.Column("failures", sa.Integer, nullable=False, server_default=sa.text("0")))
    op.add_column("api_state", sa.Column("probe_at", sa.DateTime(timezone=True)))
    op.drop_column("call_lease", "wanted")
