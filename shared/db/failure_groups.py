"""Groups of failures with the items that are in them now. An item that a later run mends leaves its group by that.

Which items are in a group, each item says by itself; so the counts come from the partial index of what has failed, and
are never out of step: what has a failure and does not wait for its next attempt has failed. What a group is called was
written with its first failure, and is kept until nothing has been in it for long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
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
    """How many are in it now."""
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
    """Raises `UnknownFailureGroup` when nothing of a resource has failed in that way, as far as is known."""
    cursor = await connection.execute("SELECT FROM failure_group WHERE id = %s AND resource = %s", (group, resource))
    if await cursor.fetchone() is None:
        raise UnknownFailureGroup(str(group))


def drop_failure_groups(connection: psycopg.Connection[Any], workflow: Workflow, *, retention_days: int) -> int:
    """Drops groups of a workflow that no item is in, and that were not seen for so many days. Returns how many."""
    statement = _DROP.format(**item_names(workflow))
    return connection.execute(statement, {"resource": workflow.resource, "days": retention_days}).rowcount


# A failure that comes meanwhile holds its group, or makes it anew: it is seen in the statement that saves the failure.
_DROP = sql.SQL(
    """/* drop_failure_groups */
DELETE FROM failure_group WHERE id = ANY(ARRAY(
    SELECT id FROM failure_group g
    WHERE resource = %(resource)s AND last_seen_at < clock_timestamp() - make_interval(days => %(days)s)
      AND NOT EXISTS (SELECT FROM {source} s WHERE s.{failure} = g.id AND s.{run_at} IS NULL)
    FOR UPDATE SKIP LOCKED
))"""
)
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
