"""Batches: the row of each call that was carried out, its replay by request_id, its outcomes, how far it has come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg import sql
from psycopg.rows import class_row

from shared.db.engine import Connection
from shared.errors import Outcome, RequestIdReused, UnknownBatch


@dataclass(frozen=True, slots=True)
class Batch:
    """One row of `status_batch`."""

    id: int
    resource: str
    status: str
    actor: str
    reason: str
    created_at: datetime
    weight: float
    requested: int
    changed: int
    queued: int
    outcome_counts: Mapping[str, int]
    position: int | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How many of a batch's items stand where; `total` is how many it queued."""

    total: int
    queued: int
    processing: int
    completed: int
    failed: int
    dequeued: int

    @property
    def done(self) -> bool:
        """Nothing of it waits or is under way."""
        return self.queued <= 0 and self.processing <= 0


_COLUMNS = """id, resource, status, actor, reason, created_at, weight, requested, changed, queued, outcome_counts,
    position"""


async def find_batch(connection: Connection, request_id: UUID, digest: bytes) -> Batch | None:
    """The batch that a call with this request_id made, if one did.

    Raises:
        RequestIdReused: that call asked for something else.
    """
    cursor = await connection.execute(
        "SELECT id, request_digest = %s FROM status_batch WHERE request_id = %s", (digest, request_id)
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    batch, same = row
    if not same:
        raise RequestIdReused(str(request_id))
    return await get_batch(connection, batch)


async def get_batch(connection: Connection, batch: int, *, resource: str | None = None) -> Batch:
    """One batch.

    Raises:
        UnknownBatch: there is no such batch, or it is of another resource than the one given.
    """
    async with connection.cursor(row_factory=class_row(Batch)) as cursor:
        await cursor.execute(f"SELECT {_COLUMNS} FROM status_batch WHERE id = %s", (batch,))  # noqa: S608
        found = await cursor.fetchone()
    if found is None or resource not in (None, found.resource):
        raise UnknownBatch(str(batch))
    return found


async def list_batches(
    connection: Connection, *, resource: str | None, before: int | None, limit: int
) -> Sequence[Batch]:
    """Batches, newest first, those with an id below `before`."""
    async with connection.cursor(row_factory=class_row(Batch)) as cursor:
        await cursor.execute(
            f"""SELECT {_COLUMNS} FROM status_batch
                WHERE (%(resource)s::text IS NULL OR resource = %(resource)s)
                  AND (%(before)s::bigint IS NULL OR id < %(before)s)
                ORDER BY id DESC LIMIT %(limit)s""",  # noqa: S608 # our own names
            {"resource": resource, "before": before, "limit": limit},
        )
        return await cursor.fetchall()


async def list_outcomes(connection: Connection, batch: int, *, after: int, limit: int) -> Sequence[tuple[int, Outcome]]:
    """Items that a batch left unchanged, each with its ordinal, those behind the ordinal `after`."""
    cursor = await connection.execute(
        """SELECT ordinal, item, reason, status, queue_status, version FROM batch_outcome
           WHERE batch = %s AND ordinal > %s ORDER BY ordinal LIMIT %s""",
        (batch, after, limit),
    )
    return [(row[0], Outcome(*row[1:])) for row in await cursor.fetchall()]


def moves(log: sql.Composable, of: sql.Composable) -> sql.Composed:
    """For a FROM: how the entries of a log change the progress of batches, as `batch`, `key` and `n`.

    Of the batch, `n` more items have the queue status `key`, or fewer where `n` is negative. `of` is the condition on
    the batch's column, e.g. `= 7`.
    """
    return _MOVES.format(log=log, of=of)


def fold(numbers: sql.Composable) -> sql.Composed:
    """A statement that adds numbers, for a FROM as `moves` gives them, to the rows of their batches."""
    return _FOLD.format(numbers=numbers)


# An item that a batch queues was in none of its states before; one that it lost to another batch counts as `none`.
# Items are counted by their attempts: an entry's arrays are equally long, and this one takes hardly any room.
_MOVES = sql.SQL(
    """(
    SELECT batch, coalesce(to_queue, 'none') AS key, cardinality(attempts) AS n
    FROM {log} WHERE batch {of} AND kind <> 'progress'
    UNION ALL
    SELECT batch, coalesce(from_queue, 'none'), -cardinality(attempts)
    FROM {log} WHERE batch {of} AND kind <> 'progress' AND cause IS DISTINCT FROM batch
    UNION ALL
    SELECT left_batch, unnest(ARRAY[from_queue, 'none']), unnest(ARRAY[-1, 1]) * cardinality(attempts)
    FROM {log} WHERE left_batch {of}
) moves"""
)
_FOLD = sql.SQL(
    """/* fold */
WITH added AS (SELECT batch, key, sum(n) AS n FROM {numbers} GROUP BY batch, key),
by_batch AS (SELECT batch, jsonb_object_agg(key, n) AS numbers FROM added GROUP BY batch)
UPDATE status_batch b
SET folded = (
    SELECT jsonb_object_agg(key, n) FROM (
        SELECT key, sum(value::bigint) AS n
        FROM (SELECT * FROM jsonb_each_text(b.folded) UNION ALL SELECT * FROM jsonb_each_text(a.numbers)) pairs
        GROUP BY key
    ) summed
)
FROM by_batch a WHERE b.id = a.batch"""
)
_PROGRESS = sql.SQL(
    """/* batch_progress */
SELECT b.resource, b.queued, b.folded, (
    SELECT jsonb_object_agg(key, n) FROM (SELECT key, sum(n) AS n FROM {moves} GROUP BY key) numbers
) FROM status_batch b WHERE b.id = %s"""
).format(moves=moves(sql.SQL("status_event"), sql.SQL("= b.id")))


async def read_progress(connection: Connection, batch: int, *, resource: str | None = None) -> Progress:
    """How far a batch has come, from its entries in the log and what dropped partitions left in its row.

    Raises:
        UnknownBatch: there is no such batch, or it is of another resource than the one given.
    """
    cursor = await connection.execute(_PROGRESS, (batch,))
    row = await cursor.fetchone()
    if row is None or resource not in (None, row[0]):
        raise UnknownBatch(str(batch))
    _, total, folded, live = row

    def number(key: str) -> int:
        return int(folded.get(key, 0)) + int((live or {}).get(key, 0))

    return Progress(
        total, number("queued"), number("processing"), number("completed"), number("failed"), number("none")
    )
