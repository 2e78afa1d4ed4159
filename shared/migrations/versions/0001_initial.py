"""The machinery's first tables: batches, the event log, worker sessions.

Written out, not taken from `shared.db.models`: a step never changes, the models do. A test holds the two together.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates them."""
    _create_batches()
    _create_log()
    _create_sessions()


def _create_batches() -> None:
    op.create_table(
        "status_batch",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("resource", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.Column("reason", sa.Text, nullable=False, server_default=sa.text("''")),
        _time("created_at"),
        sa.Column("request_id", sa.Uuid, unique=True),
        sa.Column("request_digest", sa.LargeBinary),
        _count("requested"),
        _count("changed"),
        _count("queued"),
        sa.Column("outcome_counts", JSONB, nullable=False, server_default=sa.text("'{}'")),
        sa.Column("position", sa.BigInteger),
        sa.Column("folded", JSONB, nullable=False, server_default=sa.text("'{}'")),
    )
    op.create_index("ix_status_batch_resource", "status_batch", ["resource", "id"])
    op.create_table(
        "batch_outcome",
        sa.Column("batch", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("ordinal", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("item", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("status", sa.Text),
        sa.Column("queue_status", sa.Text),
        sa.Column("version", sa.BigInteger),
    )


def _create_log() -> None:
    op.execute("CREATE SEQUENCE status_event_position")
    # Alembic can neither partition a table nor name the type xid8.
    op.execute(
        """
        CREATE TABLE status_event (
            position bigint NOT NULL,
            part smallint NOT NULL,
            xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
            at timestamptz NOT NULL DEFAULT clock_timestamp(),
            resource text NOT NULL,
            kind text NOT NULL,
            from_status text NOT NULL,
            to_status text NOT NULL,
            from_queue text,
            to_queue text,
            batch bigint,
            cause bigint,
            worker bigint,
            items text[] NOT NULL,
            versions bigint[] NOT NULL,
            attempts integer[] NOT NULL,
            errors text[],
            run_ats timestamptz[],
            steps text[],
            fractions double precision[],
            PRIMARY KEY (position, part)
        ) PARTITION BY RANGE (position)
        """
    )
    op.execute("CREATE INDEX ix_status_event_batch ON status_event (batch, position) WHERE batch IS NOT NULL")
    op.execute("CREATE INDEX ix_status_event_cause ON status_event (cause, position) WHERE cause IS NOT NULL")
    op.execute("CREATE INDEX ix_status_event_items ON status_event USING gin (items)")
    op.create_table(
        "event_log",
        sa.Column("only", sa.Boolean, sa.CheckConstraint('"only"'), primary_key=True, server_default=sa.text("true")),
        sa.Column("id", sa.Uuid, nullable=False, server_default=sa.func.gen_random_uuid()),
        sa.Column("pruned_through", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    )
    op.execute("INSERT INTO event_log DEFAULT VALUES")


def _create_sessions() -> None:
    op.create_table(
        "worker_session",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("resources", sa.ARRAY(sa.Text), nullable=False),
        _time("started_at"),
        _time("beat_at"),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("in_flight", sa.Integer, nullable=False, server_default=sa.text("0")),
        _count("done"),
        _count("failed"),
    )


def _time(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp())


def _count(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text("0"))
