"""Entries of the log as the reader makes them, without a database."""

from __future__ import annotations

from datetime import UTC, datetime

from shared.db.log import Entry

NOON = datetime(2026, 5, 4, 12, 0, 0, 250_000, tzinfo=UTC)


def entry(position: int, count: int, *, full: bool = False, error: str = "too far") -> Entry:
    """An entry of so many items; `full` has something to say in every field."""
    return Entry(
        position=position,
        xid=position,
        at=NOON,
        resource="parcels",
        kind="fail" if full else "curate",
        from_status="New",
        to_status="Scan",
        from_queue="processing" if full else None,
        to_queue="queued",
        batch=7 if full else None,
        left_batch=None,
        cause=8 if full else None,
        worker=9 if full else None,
        items=[f"{position}-{n}" for n in range(count)],
        versions=[2**40 + n for n in range(count)],
        attempts=[n % 3 for n in range(count)],
        errors=[error if n % 2 else None for n in range(count)] if full else None,
        run_ats=[NOON if n % 2 else None for n in range(count)] if full else None,
        steps=[f"step {n}" for n in range(count)] if full else None,
        fractions=[n / count for n in range(count)] if full else None,
        part=1,
        reason="for the fair" if full else "",
    )
