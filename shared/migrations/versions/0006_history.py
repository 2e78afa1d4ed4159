"""An item's history is a chain through the log: an index over the keys of every entry took a tenth of a large batch."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Reports of progress, which change no row, are still found by item. Histories begin anew."""
    op.add_column("status_event", sa.Column("earlier", ARRAY(sa.BigInteger)))
    op.execute("DROP INDEX ix_status_event_items")
    op.execute("CREATE INDEX ix_status_event_progress ON status_event USING gin (items) WHERE kind = 'progress'")
