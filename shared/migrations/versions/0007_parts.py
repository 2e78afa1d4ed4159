"""A change of items that were queued by more than 32,767 batches is more entries of the log than a smallint counts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Writes the log anew; whoever changes a status waits meanwhile."""
    op.alter_column("status_event", "part", type_=sa.Integer)
