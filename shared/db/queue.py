"""How many items of a workflow wait, and before whom; each read is served by an index."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from shared.db.engine import Connection
from shared.db.in_hand import in_hand
from shared.db.statement import item_names
from shared.workflow import ItemKey, Workflow


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """How many items of a workflow wait, and how many a worker has."""

    ready: int
    """They wait for their turn."""
    delayed: int
    """They wait for the time of their next attempt, or had to."""
    in_flight: int
    """A worker has them."""


async def count_queue(connection: Connection, workflow: Workflow) -> QueueCounts:
    """The counts of one workflow."""
    row = await (await connection.execute(_COUNTS.format(**item_names(workflow), in_hand=in_hand(workflow)))).fetchone()
    assert row is not None
    return QueueCounts(*row)


# As the predicates of the partial indexes have it: what waits is counted by an index of its own.
_COUNTS = sql.SQL(
    """/* count_queue */
SELECT (SELECT count(*) FROM {source} s WHERE s.{turn} >= '-infinity'),
       (SELECT count(*) FROM {source} s WHERE s.{run_at} >= '-infinity'),
       (SELECT count(DISTINCT s.{key}) FROM {in_hand})"""
)


async def count_ahead(connection: Connection, workflow: Workflow, key: ItemKey, *, limit: int) -> int:
    """How many items are claimed before a queued one whose time has come, counted up to `limit`.

    What had to wait and whose time has come goes before what waits for its turn.
    """
    cursor = await connection.execute(_AHEAD.format(**item_names(workflow)), {"key": key, "limit": limit})
    row = await cursor.fetchone()
    return min(row[0], limit) if row is not None else 0


_AHEAD = sql.SQL(
    """/* count_ahead */
SELECT (SELECT count(*) FROM (
            SELECT FROM {source} s
            WHERE s.{run_at} <= now() AND (i.{run_at} IS NULL OR s.{run_at} < i.{run_at})
            LIMIT %(limit)s
        ) late)
     + (SELECT count(*) FROM (
            SELECT FROM {source} s
            WHERE s.{turn} IS NOT NULL AND i.{run_at} IS NULL AND (s.{turn}, s.{key}) < (i.{turn}, i.{key})
            LIMIT %(limit)s
        ) next)
FROM {source} i WHERE i.{key} = %(key)s"""
)
