"""The machinery's own tables. Source of names; a test holds the migrations to them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    Float,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import UserDefinedType

machinery = MetaData()
"""The tables of this module."""


class Xid8(UserDefinedType[Any]):
    """A transaction id that does not wrap around."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """The type's name in SQL."""
        return "xid8"


def _time(name: str, **options: Any) -> Column[Any]:
    return Column(name, DateTime(timezone=True), **options)


status_batch = Table(
    "status_batch",
    machinery,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("resource", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("actor", Text, nullable=False, server_default=text("''")),
    Column("reason", Text, nullable=False, server_default=text("''")),
    _time("created_at", nullable=False, server_default=func.clock_timestamp()),
    Column("request_id", Uuid, unique=True),
    Column("request_digest", LargeBinary),
    # How many of its items are claimed for each item of a batch of normal priority.
    Column("weight", Double, nullable=False, server_default=text("1")),
    Column("requested", BigInteger, nullable=False, server_default=text("0")),
    Column("changed", BigInteger, nullable=False, server_default=text("0")),
    Column("queued", BigInteger, nullable=False, server_default=text("0")),
    Column("outcome_counts", JSONB, nullable=False, server_default=text("'{}'")),
    Column("position", BigInteger),
    # What log partitions that were dropped since said of this batch's progress, by queue status.
    Column("folded", JSONB, nullable=False, server_default=text("'{}'")),
    Index("ix_status_batch_resource", "resource", "id"),
)

batch_outcome = Table(
    "batch_outcome",
    machinery,
    Column("batch", BigInteger, primary_key=True, autoincrement=False),
    Column("ordinal", BigInteger, primary_key=True, autoincrement=False),
    Column("item", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("status", Text),
    Column("queue_status", Text),
    Column("version", BigInteger),
)

# One row per transaction and kind of transition, holding its items: written a quarter faster than a row per item, and
# read together.
status_event = Table(
    "status_event",
    machinery,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("xid", Xid8, nullable=False, server_default=text("pg_current_xact_id()")),
    _time("at", nullable=False, server_default=func.clock_timestamp()),
    Column("resource", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("from_status", Text, nullable=False),
    Column("to_status", Text, nullable=False),
    Column("from_queue", Text),
    Column("to_queue", Text),
    # The batch whose enrichment this belongs to; the batch that made the change, when a user did; the session that did.
    Column("batch", BigInteger),
    Column("cause", BigInteger),
    Column("worker", BigInteger),
    # The batch that an item under way was taken from, where it went on in another.
    Column("left_batch", BigInteger),
    Column("items", ARRAY(Text), nullable=False),
    Column("versions", ARRAY(BigInteger), nullable=False),
    Column("attempts", ARRAY(Integer), nullable=False),
    Column("errors", ARRAY(Text)),
    Column("run_ats", ARRAY(DateTime(timezone=True))),
    Column("steps", ARRAY(Text)),
    Column("fractions", ARRAY(Float)),
    # Where each item's event before this one is; none for the first.
    Column("earlier", ARRAY(BigInteger)),
    Index("ix_status_event_batch", "batch", "position", postgresql_where=text("batch IS NOT NULL")),
    Index("ix_status_event_cause", "cause", "position", postgresql_where=text("cause IS NOT NULL")),
    Index("ix_status_event_left", "left_batch", postgresql_where=text("left_batch IS NOT NULL")),
    Index("ix_status_event_progress", "items", postgresql_using="gin", postgresql_where=text("kind = 'progress'")),
    postgresql_partition_by="RANGE (position)",
)

event_log = Table(
    "event_log",
    machinery,
    Column("only", Boolean, CheckConstraint('"only"'), primary_key=True, server_default=text("true")),
    Column("id", Uuid, nullable=False, server_default=func.gen_random_uuid()),
    Column("pruned_through", BigInteger, nullable=False, server_default=text("0")),
)

worker_session = Table(
    "worker_session",
    machinery,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("host", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("resources", ARRAY(Text), nullable=False),
    _time("started_at", nullable=False, server_default=func.clock_timestamp()),
    _time("beat_at", nullable=False, server_default=func.clock_timestamp()),
    _time("ended_at"),
    # Taken for dead after so long without a beat.
    Column("expiry_s", Double, nullable=False, server_default=text("30")),
    Column("in_flight", Integer, nullable=False, server_default=text("0")),
    Column("done", BigInteger, nullable=False, server_default=text("0")),
    Column("failed", BigInteger, nullable=False, server_default=text("0")),
)

# What a worker took by one claim, until it has settled all of it. Which items those are, the log's entry says; once its
# partition is dropped, this row.
worker_claim = Table(
    "worker_claim",
    machinery,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("resource", Text, nullable=False),
    Column("session", BigInteger, nullable=False),
    Column("items", ARRAY(Text)),
)

# What operators say of a workflow: while it is paused nobody claims.
workflow_state = Table(
    "workflow_state",
    machinery,
    Column("resource", Text, primary_key=True),
    _time("paused_at"),
    Column("paused_by", Text, nullable=False, server_default=text("''")),
    Column("pause_reason", Text, nullable=False, server_default=text("''")),
    # Paused, and workers give back what they have not begun.
    Column("draining", Boolean, nullable=False, server_default=text("false")),
    _time("resumed_at"),
    Column("resumed_by", Text, nullable=False, server_default=text("''")),
    Column("resume_reason", Text, nullable=False, server_default=text("''")),
)

# What workers know of an external API: nobody claims before `held_until`, nor while it is broken, a probe apart.
api_state = Table(
    "api_state",
    machinery,
    Column("api", Text, primary_key=True),
    _time("held_until"),
    _time("broken_since"),
    # How often it was tried while broken, and when it may be tried again.
    Column("probes", Integer, nullable=False, server_default=text("0")),
    Column("error", Text, nullable=False, server_default=text("''")),
    # Attempts in a row, of all workers, that found it down.
    Column("failures", Integer, nullable=False, server_default=text("0")),
    _time("probe_at"),
)

# When the next call of an API, or of a key of it, may begin: a schedule of which workers reserve portions.
call_schedule = Table(
    "call_schedule",
    machinery,
    Column("api", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    _time("next_at", nullable=False),
)

# How many calls of an API, or of a key of it, a worker may have under way at once.
call_lease = Table(
    "call_lease",
    machinery,
    Column("api", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("session", BigInteger, primary_key=True, autoincrement=False),
    Column("slots", Integer, nullable=False, server_default=text("0")),
)

# Failures that are alike. Which items are in a group, each item says by itself.
failure_group = Table(
    "failure_group",
    machinery,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("resource", Text, nullable=False),
    Column("upstream", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("message", Text, nullable=False),
    _time("first_seen_at", nullable=False, server_default=func.clock_timestamp()),
    _time("last_seen_at", nullable=False, server_default=func.clock_timestamp()),
)
