"""Rows of a source that are gone while they are queued, or a worker has them: deleted, truncated, or reset by hand.

Nobody tells the machinery, and without an end for each item their batch would never be done. But its log says how many
are open, and the rows say how many there are; one statement, which sees both at one moment, finds what is lacking.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from shared.db.batches import fold, moves
from shared.db.in_hand import in_hand
from shared.db.partitions import keep_alone
from shared.db.statement import item_names
from shared.workflow import Workflow


def count_gone(connection: psycopg.Connection[Any], workflow: Workflow, batches: Sequence[int]) -> int:
    """Counts what is gone as dequeued in its batch. Returns in how many of them it did.

    What was taken for gone and is there again, as rows of a partition that was detached for a while, is counted back.
    Reads all that is queued or with a worker, by the indexes of these, where one of the batches is the workflow's.

    Args:
        connection: in a transaction, which the caller commits.
        workflow: whose items.
        batches: those of other workflows, or that are no more, are passed over.
    """
    keep_alone(connection)  # whoever drops a part of the log adds to the same numbers
    statement = fold(_GONE.format(**item_names(workflow), in_hand=in_hand(workflow), moves=_SAID))
    return connection.execute(statement, {"batches": list(batches)}).rowcount


_SAID = moves(sql.SQL("status_event"), sql.SQL("= ANY(ARRAY(SELECT id FROM asked))"))
# What waits, as the predicates of its indexes have it.
_GONE = sql.SQL(
    """(
    WITH asked AS MATERIALIZED (
        SELECT id, folded FROM status_batch WHERE id = ANY(%(batches)s::bigint[]) AND resource = {resource}
    ), said AS (
        SELECT batch, key, sum(n) AS n FROM (
            SELECT batch, key, n FROM {moves}
            UNION ALL SELECT id, key, value::bigint FROM asked, jsonb_each_text(folded)
        ) told WHERE key IN ('queued', 'processing') GROUP BY batch, key
    ), there AS (
        SELECT batch, key, count(*) AS n FROM (
            SELECT s.{batch} AS batch, 'queued' AS key FROM {source} s WHERE s.{turn} >= '-infinity'
            UNION ALL SELECT s.{batch}, 'queued' FROM {source} s WHERE s.{run_at} >= '-infinity'
            UNION ALL SELECT * FROM (SELECT DISTINCT ON (s.{key}) s.{batch}, 'processing' FROM {in_hand}) held
        ) items WHERE EXISTS (SELECT FROM asked) GROUP BY batch, key
    ), gone AS (
        SELECT batch, key, said.n - coalesce(there.n, 0) AS n
        FROM said LEFT JOIN there USING (batch, key) WHERE said.n <> coalesce(there.n, 0)
    )
    SELECT batch, key, -n AS n FROM gone UNION ALL SELECT batch, 'none', n FROM gone
) lacking"""
)
