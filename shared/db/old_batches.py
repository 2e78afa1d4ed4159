"""Batches that are over go with their outcomes, and their request_ids with them.

A batch is over once the log has dropped all that it did: its own change, and the end of each item that it queued. Then
nothing can be told of it any more but its row, which is kept for a retention of its own. What is queued, under way or
waits for another attempt has no end in the log, so an open batch stays, however old. What partitions said of batches
before they were dropped is in the rows of the batches; so no row of an item and no entry of the log is read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from shared.db.partitions import keep_alone

PORTION = 1_000
"""Batches and outcomes of one transaction, or one batch with all of its outcomes."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """What became of a portion."""

    count: int
    through: int | None
    """The next portion is behind this batch; None when what is there is too young."""
    kept: Sequence[int] = ()
    """Old ones that are not over, as far as the log and their rows say."""


def drop_batches(connection: psycopg.Connection[Any], *, retention_days: int, after: int) -> Dropped:
    """Drops batches that are over and older than the retention, of the oldest behind the id `after`.

    Args:
        connection: in a transaction, which the caller commits.
        retention_days: days since the call; none goes before the log has dropped all of it.
        after: 0 at first, then where the portion before ended.
    """
    keep_alone(connection)
    parameters = {"after": after, "days": retention_days, "size": PORTION}
    row = connection.execute(_DROP, parameters, prepare=False).fetchone()  # planned for these, however many portions
    assert row is not None, "aggregates have a row"
    count, through, kept = row
    return Dropped(count, through, tuple(kept))


# Ids are in the order of time: the primary key finds the oldest, and the first that is too young ends the walk. What
# goes is named by arrays, which are looked up in an index whatever the planner guesses.
_DROP = """/* drop_batches */
WITH oldest AS MATERIALIZED (
    SELECT id, position, queued, folded, requested - changed AS outcomes,
           created_at < clock_timestamp() - make_interval(days => %(days)s) AS is_old
    FROM status_batch WHERE id > %(after)s ORDER BY id LIMIT %(size)s
),
portion AS MATERIALIZED (
    SELECT * FROM (SELECT *, sum(1 + outcomes) OVER (ORDER BY id) - 1 - outcomes AS size_before FROM oldest) sized
    WHERE size_before < %(size)s
),
over AS MATERIALIZED (
    SELECT array_agg(p.id) AS ids FROM portion p, event_log
    WHERE is_old AND coalesce(position, 0) <= pruned_through AND queued <= (
        SELECT coalesce(sum(value::bigint), 0) FROM jsonb_each_text(folded) WHERE key IN ('completed', 'failed', 'none')
    )
),
outcomes AS (DELETE FROM batch_outcome WHERE batch = ANY((SELECT ids FROM over)::bigint[])),
dropped AS (DELETE FROM status_batch WHERE id = ANY((SELECT ids FROM over)::bigint[]) RETURNING id)
SELECT (SELECT count(*) FROM dropped), CASE WHEN bool_and(is_old) THEN max(id) END,
       ARRAY(SELECT id FROM portion WHERE is_old AND (id = ANY((SELECT ids FROM over)::bigint[])) IS NOT TRUE)
FROM portion"""
