"""The keys in an entry of the log are kept as they are: to compress them takes longer than to write them."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """For what is written from now on, in partitions that are there and in those to come."""
    op.execute("ALTER TABLE status_event ALTER COLUMN items SET STORAGE EXTERNAL")
