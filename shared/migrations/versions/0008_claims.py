"""Claims say who has what: an index of the items in hand was written at every claim and every completion."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Adds the table. What is in hand by then is noted where a source's indexes are replaced, which knows its rows."""
    op.create_table(
        "worker_claim",
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("resource", sa.Text, nullable=False),
        sa.Column("session", sa.BigInteger, nullable=False),
        sa.Column("items", ARRAY(sa.Text)),
    )
