"""Holds a database against its log: rows, batches and their counters say what the replayed log says, and no more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from psycopg import sql
from psycopg.rows import dict_row

from shared.db.batches import Progress, read_progress
from shared.db.engine import Connection
from shared.db.log import read_log
from shared.db.statement import item_names
from shared.machine import COMPLETED, FAILED, NONE, PROCESSING, QUEUE_STATUSES, QUEUED
from shared.workflow import Workflow
from tests.support.ledger import Account, Ledger

Row = Mapping[str, Any]
READ_COUNT = 1000
"""Entries at a time."""
_HAS_ERROR = {NONE: {False}, QUEUED: {False, True}, PROCESSING: {False, True}, COMPLETED: {False}, FAILED: {True}}
"""That of the attempt before stays while the next one is waited for, and under way."""

_ROWS = sql.SQL(
    """SELECT {key}::text AS item, {status} AS status, coalesce({queue}, 'none') AS queue_status, version,
       {attempts} AS attempts, {worker} AS worker, {batch} AS batch, {error} AS error, {failure} AS failure,
       {result} AS result, {turn} AS turn, {run_at} AS run_at FROM {source}"""
)


async def follow(connection: Connection, workflow: Workflow, ledger: Ledger) -> None:
    """Reads what is new in the log."""
    while entries := await read_log(connection, after=ledger.position, through=2**62, limit=READ_COUNT):
        ledger.take(entry for entry in entries if entry.resource == workflow.resource)
        ledger.position = entries[-1].position


async def audit(connection: Connection, workflow: Workflow, ledger: Ledger) -> list[str]:
    """Returns what does not agree with the log; nothing else may write meanwhile."""
    await follow(connection, workflow, ledger)
    wrong = [*ledger.contradictions]
    rows = await _rows(connection, workflow)
    for item, row in rows.items():
        wrong += [f"{item} {what}: {row}" for what in _ill_formed(row, workflow)]
        wrong += [f"{item} {what}" for what in _differences(row, ledger.accounts[item])]
    wrong += [f"{item} is gone" for item in ledger.accounts.keys() - rows.keys()]
    for batch in sorted(ledger.moved):
        progress = await read_progress(connection, batch)
        told = [*_miscounted(batch, progress, rows), *_uncounted(batch, progress, ledger)]
        wrong += [f"batch {batch} counts {progress}, and {what}" for what in told]
    ledger.moved.clear()
    return wrong


async def _rows(connection: Connection, workflow: Workflow) -> Mapping[str, Row]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_ROWS.format(**item_names(workflow)))
        return {row["item"]: row for row in await cursor.fetchall()}


def _ill_formed(row: Row, workflow: Workflow) -> Iterator[str]:
    """An item is in exactly one state, and its fields are those of that state."""
    queue, attempts, attempts_max = row["queue_status"], row["attempts"], workflow.limits.attempts_max
    told = row["error"] is not None, row["failure"] is not None
    if row["status"] not in workflow.curation.statuses or queue not in QUEUE_STATUSES:
        yield "has no such state"
    if queue in (QUEUED, PROCESSING) and row["status"] not in workflow.curation.triggers:
        yield "waits for an enrichment that its status does not ask for"
    if (row["worker"] is not None) != (queue == PROCESSING):
        yield "and its worker do not agree"
    if (row["result"] is not None) != (queue == COMPLETED):
        yield "and its result do not agree"
    if (row["batch"] is None) != (queue == NONE):
        yield "and its batch do not agree"
    if [row["turn"], row["run_at"]].count(None) != (1 if queue == QUEUED else 2):
        yield "and its place in the queue do not agree"
    if told[0] < told[1] or (queue == FAILED and not told[1]) or told[0] not in _HAS_ERROR[queue]:
        yield "and its error do not agree"
    if not (queue == PROCESSING) <= attempts <= attempts_max - (queue == QUEUED):
        yield "has too many attempts, or too few"


def _differences(row: Row, account: Account) -> Iterator[str]:
    for name in ("status", "queue_status", "version", "attempts", "worker", "batch", "error"):
        if row[name] != getattr(account, name):
            yield f"has {name} {row[name]}, and {getattr(account, name)} by the log"


def _miscounted(batch: int, progress: Progress, rows: Mapping[str, Row]) -> Iterator[str]:
    """What waits and what runs is in the rows; what has ended there may have gone on with another batch since."""
    for name in (QUEUED, PROCESSING, COMPLETED, FAILED):
        count = sum(row["batch"] == batch and row["queue_status"] == name for row in rows.values())
        counted = getattr(progress, name)
        if counted < count or (counted > count and name in (QUEUED, PROCESSING)):
            yield f"of the rows {count} are {name}"


def _uncounted(batch: int, progress: Progress, ledger: Ledger) -> Iterator[str]:
    counts = ledger.progress(batch)
    told = Progress(counts.total(), *(counts[name] for name in (QUEUED, PROCESSING, COMPLETED, FAILED, NONE)))
    if told != progress:
        yield f"the log {told}"
