"""How many items of a workflow wait; each read is served by one of the queue's partial indexes."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from shared.db.engine import Connection
from shared.db.statement import item_names
from shared.workflow import Workflow


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """How many items a workflow has where."""

    ready: int
    """Wait for their turn."""
    delayed: int
    """Wait for the time of their next attempt, or had to."""
    in_flight: int
    """With a worker."""


async def count_queue(connection: Connection, workflow: Workflow) -> QueueCounts:
    """The counts of one workflow."""
    row = await (await connection.execute(_COUNTS.format(**item_names(workflow)))).fetchone()
    assert row is not None
    return QueueCounts(*row)


# As the predicates of the partial indexes have it: each is counted by an index of its own.
_COUNTS = sql.SQL(
    """/* count_queue */
SELECT (SELECT count(*) FROM {source} s WHERE s.{queue} = 'queued' AND s.{run_at} IS NULL),
       (SELECT count(*) FROM {source} s WHERE s.{queue} = 'queued' AND s.{run_at} IS NOT NULL),
       (SELECT count(*) FROM {source} s WHERE s.{queue} = 'processing')"""
)
