"""What operators need: paused workflows, states and limits of external APIs, groups of failures, turns of batches."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Creates them."""
    op.add_column("status_batch", sa.Column("weight", sa.Double, nullable=False, server_default=sa.text("1")))
    op.add_column("status_event", sa.Column("left_batch", sa.BigInteger))
    op.execute("CREATE INDEX ix_status_event_left ON status_event (left_batch) WHERE left_batch IS NOT NULL")
    op.create_table(
        "workflow_state",
        sa.Column("resource", sa.Text, primary_key=True),
        sa.Column("paused_at", sa.DateTime(timezone=True)),
        _words("paused_by"),
        _words("pause_reason"),
    )
    op.create_table(
        "api_state",
        sa.Column("api", sa.Text, primary_key=True),
        sa.Column("held_until", sa.DateTime(timezone=True)),
        sa.Column("broken_since", sa.DateTime(timezone=True)),
        sa.Column("probes", sa.Integer, nullable=False, server_default=sa.text("0")),
        _words("error"),
    )
    op.create_table(
        "call_schedule",
        sa.Column("api", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "call_lease",
        sa.Column("api", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("session", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("slots", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("wanted", sa.Integer, nullable=False, server_default=sa.text("0")),
    )
    op.create_table(
        "failure_group",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("resource", sa.Text, nullable=False),
        sa.Column("upstream", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        *(
            sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp())
            for name in ("first_seen_at", "last_seen_at")
        ),
    )


def _words(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Text, nullable=False, server_default=sa.text("''"))
