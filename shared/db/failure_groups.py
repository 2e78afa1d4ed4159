"""Groups of failures with the items that are in them now. An item that a later run mends leaves its group by that.

Which items are in a group, each item says by itself; so the counts come from the partial index of what has failed, and
are never out of step: what has a failure and does not wait for its next attempt has failed. What a group is called was
written with its first failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg import sql
from psycopg.rows import class_row

from shared.db.engine import Connection
from shared.db.statement import item_names
from shared.errors import UnknownFailureGroup
from shared.workflow import Workflow


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failures that are alike."""

    id: int
    upstream: str
    kind: str
    message: str
    items: int
    """Those that are in it now."""
    sample: str
    """The key of one of them, as text."""
    sample_error: str
    first_seen_at: datetime
    last_seen_at: datetime


async def list_failure_groups(
    connection: Connection, workflow: Workflow, *, batch: int | None, after: tuple[int, int] | None, limit: int
) -> Sequence[FailureGroup]:
    """Groups that items are in, the largest first; behind the one with this count and id."""
    of_batch = sql.SQL("") if batch is None else sql.SQL("AND s.{batch} = %(batch)s").format(**item_names(workflow))
    count, group = after or (None, None)
    async with connection.cursor(row_factory=class_row(FailureGroup)) as cursor:
        await cursor.execute(
            _GROUPS.format(**item_names(workflow), of_batch=of_batch),
            {"batch": batch, "after_count": count, "after_id": group, "limit": limit},
        )
        return await cursor.fetchall()


async def check_group(connection: Connection, resource: str, group: int) -> None:
    """Raises `UnknownFailureGroup` when nothing of a resource has ever failed in that way."""
    cursor = await connection.execute("SELECT FROM failure_group WHERE id = %s AND resource = %s", (group, resource))
    if await cursor.fetchone() is None:
        raise UnknownFailureGroup(str(group))


_GROUPS = sql.SQL(
    """/* list_failure_groups */
WITH counted AS MATERIALIZED (
    SELECT s.{failure} AS id, count(*) AS items
    FROM {source} s
    WHERE s.{failure} IS NOT NULL AND s.{run_at} IS NULL {of_batch}
    GROUP BY s.{failure}
), page AS MATERIALIZED (
    SELECT id, items FROM counted
    WHERE %(after_count)s::bigint IS NULL OR (items, id) < (%(after_count)s, %(after_id)s::bigint)
    ORDER BY items DESC, id DESC
    LIMIT %(limit)s
)
SELECT p.id, g.upstream, g.kind, g.message, p.items, sample.key::text AS sample,
       coalesce(sample.error, '') AS sample_error, g.first_seen_at, g.last_seen_at
FROM page p
JOIN failure_group g ON g.id = p.id
CROSS JOIN LATERAL (
    SELECT s.{key} AS key, s.{error} AS error
    FROM {source} s
    WHERE s.{failure} = p.id AND s.{run_at} IS NULL {of_batch}
    ORDER BY s.{key}
    LIMIT 1
) sample
ORDER BY p.items DESC, p.id DESC"""
)
