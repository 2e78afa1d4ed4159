"""What workers have in hand: a row for each claim, until its worker has settled all of its items and forgets it.

An index of the items in hand would say the same, and be written twice for each of them. A claim names its items by its
entry of the log; before that is dropped they are copied (`shared.db.partitions`). Whether an item is still in hand, its
own row says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import ARRAY, ColumnClause, literal_column

from shared.db.engine import Connection
from shared.db.statement import item_names, type_name
from shared.workflow import Item, ItemKey, Workflow

OVER = sql.SQL("NOT EXISTS (SELECT FROM worker_session w WHERE w.id = {session} AND w.ended_at IS NULL)")
"""The condition that a session is over."""

_CLAIMED = sql.SQL(
    """(SELECT * FROM {claims} WHERE resource = {resource}) c
    CROSS JOIN LATERAL (
        SELECT unnest(c.items) UNION ALL SELECT unnest(e.items) FROM status_event e WHERE e.position = c.position
    ) claimed (key)"""
)
_IN_HAND = sql.SQL(
    """{claimed}
    JOIN {source} s ON s.{key} = claimed.key::{key_type} AND s.{queue} = 'processing' AND s.{worker} = c.session"""
)
_OWN = sql.SQL(
    """/* own_items */
SELECT DISTINCT s.{key}, s.{version}, s.{attempts} FROM {in_hand}
WHERE c.session = %s"""
)
_FORGET = sql.SQL(
    """/* forget_claims */
WITH orphaned AS MATERIALIZED (
    SELECT * FROM worker_claim WHERE resource = {resource} AND {is_over} ORDER BY position LIMIT %s
), needed AS MATERIALIZED (SELECT c.position FROM {in_hand})
DELETE FROM worker_claim
WHERE position IN (SELECT position FROM orphaned) AND position NOT IN (SELECT position FROM needed)"""
)
# The rows are asked, whose workers may be gone for longer than the log is kept. The position is that of no entry.
_NOTE = sql.SQL(
    """/* note_claims */
WITH stray AS MATERIALIZED (
    SELECT s.{worker} AS worker, s.{key}::text AS key FROM {source} s
    WHERE s.{queue} = 'processing' AND s.{worker} IS NOT NULL AND s.{key} NOT IN (SELECT s.{key} FROM {in_hand})
), noted AS (
    INSERT INTO worker_claim (position, resource, session, items)
    SELECT nextval('status_event_position'), {resource}, c.*
    FROM (SELECT worker, array_agg(key) FROM stray GROUP BY worker) c
)
SELECT count(*) FROM stray"""
)


def in_hand(workflow: Workflow, claims: str = "worker_claim") -> sql.Composed:
    """For a FROM: the claims `c` of a workflow, with those of their items `s` that are still with their worker.

    An item may be there twice. `claims` names a table or a CTE that has claims, perhaps of other workflows, too, whose
    keys may be of another type.
    """
    return _IN_HAND.format(**item_names(workflow), claimed=_claimed(workflow, claims))


def claimed_keys(workflow: Workflow) -> ColumnClause[Sequence[ItemKey]]:
    """For composed reads, an array: the keys of all items that are with workers, and of some that were, maybe twice."""
    keys = sql.SQL("ARRAY(SELECT claimed.key::{} FROM {})").format(
        type_name(workflow.key), _claimed(workflow, "worker_claim")
    )
    return literal_column(keys.as_string(None), ARRAY(workflow.key.type))


def _claimed(workflow: Workflow, claims: str) -> sql.Composed:
    return _CLAIMED.format(resource=sql.Literal(workflow.resource), claims=sql.Identifier(claims))


async def own_items(connection: Connection, workflow: Workflow, session: int) -> Sequence[Item]:
    """What a session has in hand, without its data."""
    statement = _OWN.format(**item_names(workflow), in_hand=in_hand(workflow))
    cursor = await connection.execute(statement, [session])
    return [Item(key, version, attempts, {}) for key, version, attempts in await cursor.fetchall()]


def note_claims(connection: psycopg.Connection[Any], workflow: Workflow) -> int:
    """Notes claims of items that are with workers by their own rows alone: else nobody would rescue them.

    Such a row had its key changed while a worker had it, or came with its status from elsewhere. Reads the whole table.
    Returns how many items there were.
    """
    row = connection.execute(_NOTE.format(**item_names(workflow), in_hand=in_hand(workflow))).fetchone()
    assert row is not None
    return int(row[0])


async def forget_claims(connection: Connection, workflow: Workflow, *, limit: int) -> None:
    """Looks at the oldest `limit` claims of ended sessions, and forgets those of which nothing is in hand any more."""
    is_over = OVER.format(session=sql.SQL("session"))
    statement = _FORGET.format(
        resource=sql.Literal(workflow.resource), is_over=is_over, in_hand=in_hand(workflow, "orphaned")
    )
    await connection.execute(statement, [limit])
