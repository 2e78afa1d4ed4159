"""The event log: its identity, its entries, the history of an item, and progress reports.

An entry holds all items of one transaction that made the same transition. Transitions are appended by the writer;
progress reports, which change no row, are appended here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeAlias
from uuid import UUID

from psycopg import sql

from shared.db.engine import Connection
from shared.db.statement import item_names
from shared.db.writer import CHANNEL, NOTIFY_WATCHERS
from shared.errors import LogRewound, TokenExpired
from shared.workflow import ItemKey, Workflow

READ_BYTES = 128 * 1024
"""The keys that a reader holds at once, some 3,300 UUIDs; a watcher that is behind holds them as long as its client
reads nothing."""

STATE = "workflow"
"""The kind of an entry that says that the state of a workflow, or of its external API, has changed."""

_COLUMNS = """e.position, e.xid::text::bigint, e.at, e.resource, e.kind, e.from_status, e.to_status,
    e.from_queue, e.to_queue, e.batch, e.left_batch, e.cause, e.worker, e.items, e.versions, e.attempts,
    e.errors, e.run_ats, e.steps, e.fractions, e.part,
    coalesce((SELECT b.reason FROM status_batch b WHERE b.id = e.cause), '')"""


# The sum runs along the primary key and stops with the limit. The size of what is stored is known without reading it,
# so an entry of 100,000 items that is left out costs as little as one of a single item.
LOOK = f"""/* read_log */
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, l.* FROM (VALUES (true)) one LEFT JOIN (
    SELECT {_COLUMNS} FROM (
        SELECT *, sum(pg_column_size(items)) OVER (ORDER BY position) AS size,
               first_value(position) OVER (ORDER BY position) AS first
        FROM status_event WHERE position > {{after}} AND position <= {{through}}
        ORDER BY position FETCH FIRST {{limit}} ROWS WITH TIES
    ) e WHERE e.size <= {READ_BYTES} OR e.position = e.first ORDER BY e.position, e.part
) l ON true"""  # noqa: S608 # our own names
"""What `read_log` reads, and the oldest transaction under way: whatever earlier ones have committed is seen."""
_READ = LOOK.format(after="%(after)s", through="%(through)s", limit="%(limit)s")


Mark: TypeAlias = tuple[int, int]
"""Position and transaction of an entry: a log that has another there, or none, is not the one that was read."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the log: items that made the same transition in one transaction, as parallel sequences."""

    position: int
    xid: int
    at: datetime
    resource: str
    kind: str
    from_status: str
    to_status: str
    from_queue: str | None
    to_queue: str | None
    batch: int | None
    left_batch: int | None
    cause: int | None
    worker: int | None
    items: Sequence[str]
    versions: Sequence[int]
    attempts: Sequence[int]
    errors: Sequence[str | None] | None
    run_ats: Sequence[datetime | None] | None
    steps: Sequence[str] | None
    fractions: Sequence[float] | None
    part: int
    """The number of this entry among those of its position."""
    reason: str
    """Why, as the batch that is the cause says; empty without one."""

    @property
    def batches(self) -> tuple[int | None, int | None, int | None]:
        """The batches that it concerns."""
        return self.batch, self.cause, self.left_batch


@dataclass(frozen=True, slots=True)
class LogIdentity:
    """Which log this is, and how far back it goes."""

    id: UUID
    pruned_through: int
    """Events up to this position are gone."""


async def log_identity(connection: Connection) -> LogIdentity:
    """The identity of this database's log."""
    row = await (await connection.execute("SELECT id, pruned_through FROM event_log")).fetchone()
    assert row is not None, "the database is not migrated"
    return LogIdentity(row[0], row[1])


async def check_reaches(connection: Connection, position: int) -> None:
    """Raises `TokenExpired` when the log no longer has all that follows a position, or never got there."""
    cursor = await connection.execute("SELECT pruned_through, last_value FROM event_log, status_event_position")
    row = await cursor.fetchone()
    assert row is not None, "the database is not migrated"
    pruned_through, drawn = row
    if position < pruned_through:
        raise TokenExpired("the log no longer reaches back to this token: start again with a snapshot")
    if position > drawn:
        raise TokenExpired("this token is ahead of the log, which was restored since: start again with a snapshot")


async def newest_position(connection: Connection) -> int:
    """The position of the newest entry that this transaction sees; 0 without any.

    Not what the sequence has drawn last: where that was rolled back, no reader ever stands.
    """
    mark = await newest_mark(connection, through=2**63 - 1)
    return 0 if mark is None else mark[0]


async def newest_mark(connection: Connection, *, through: int) -> Mark | None:
    """The newest entry that this transaction sees, up to a position."""
    cursor = await connection.execute(
        """/* newest_mark */ SELECT position, xid::text::bigint FROM status_event WHERE position <= %s
        ORDER BY position DESC LIMIT 1""",
        (through,),
    )
    return await cursor.fetchone()


async def check_contains(connection: Connection, mark: Mark) -> None:
    """Raises `LogRewound` when the log lacks an entry that it had, unless that is older than the log."""
    position, xid = mark
    cursor = await connection.execute(
        """SELECT EXISTS (SELECT FROM status_event WHERE position = %(position)s AND xid = %(xid)s::text::xid8)
               OR %(position)s <= pruned_through FROM event_log""",
        {"position": position, "xid": str(xid)},
    )
    row = await cursor.fetchone()
    if row is None or not row[0]:
        raise LogRewound(
            f"the log has lost position {position}, which it had: the database was restored, or a standby "
            "took over without its last commits"
        )


async def read_log(connection: Connection, *, after: int, through: int, limit: int) -> list[Entry]:
    """Entries in (after, through], in order; whole transactions, `limit` entries or a few more.

    Fewer when they are large: no more than `READ_BYTES` of keys, as the table holds them, or one transaction.
    """
    cursor = await connection.execute(_READ, {"after": after, "through": through, "limit": limit})
    return looked_up(await cursor.fetchall())[1]


def looked_up(rows: Sequence[Sequence[Any]]) -> tuple[int, list[Entry]]:
    """What `LOOK` found: the oldest transaction under way, and the entries."""
    return rows[0][0], [Entry(*row[1:]) for row in rows if row[1] is not None]


async def read_history(connection: Connection, key: str, *, last: int | None, limit: int) -> list[tuple[Entry, int]]:
    """The entries of an item's changes, newest first, each with the item's place in it; without progress reports.

    As far back as the log is kept, from the entry at `last`, which the item's row names.
    """
    cursor = await connection.execute(
        f"""/* read_history */
            WITH RECURSIVE chain (position, part, earlier, n) AS (
                SELECT NULL::bigint, NULL::integer, %(last)s::bigint, 0
                UNION ALL
                SELECT e.position, e.part, e.earlier[array_position(e.items, %(key)s)], c.n + 1
                FROM chain c JOIN status_event e ON e.position = c.earlier AND %(key)s = ANY(e.items)
                WHERE c.n < %(limit)s
            )
            SELECT {_COLUMNS} FROM chain c JOIN status_event e USING (position, part) ORDER BY c.n""",  # noqa: S608 # our own names
        {"key": key, "last": last, "limit": limit},
    )
    entries = [Entry(*row) for row in await cursor.fetchall()]
    return [(entry, list(entry.items).index(key)) for entry in entries]


async def append_progress(
    connection: Connection, workflow: Workflow, reports: Sequence[tuple[ItemKey, int, str, float]]
) -> None:
    """Appends progress reports: (key, version, step, fraction) each.

    Those of items that moved on, or that somebody holds, are left out: nothing waits for the sake of progress.
    """
    parameters: dict[str, Any] = {
        "resource": workflow.resource,
        "keys": [report[0] for report in reports],
        "versions": [report[1] for report in reports],
        "steps": [report[2] for report in reports],
        "fractions": [report[3] for report in reports],
    }
    await connection.execute(_progress_statement(workflow), parameters)


@lru_cache
def _progress_statement(workflow: Workflow) -> bytes:
    return (
        sql.SQL(
            """/* append_progress */
WITH told AS MATERIALIZED (
    SELECT s.{key}::text AS key, r.version, s.{status} AS status, s.{attempts} AS attempts, s.{batch} AS batch,
           s.{worker} AS worker, r.step, r.fraction
    FROM unnest(%(keys)s::{key_type}[], %(versions)s::bigint[], %(steps)s::text[], %(fractions)s::float8[])
         AS r (key, version, step, fraction)
    JOIN {source} s ON s.{key} = r.key AND s.{version} = r.version
    WHERE s.{queue} = 'processing'
    ORDER BY s.{key}
    FOR SHARE OF s SKIP LOCKED
), position AS MATERIALIZED (
    SELECT nextval('status_event_position') AS position FROM (SELECT count(*) AS n FROM told) c WHERE n > 0
), appended AS (
    INSERT INTO status_event (position, part, resource, kind, from_status, to_status, from_queue, to_queue,
                              batch, worker, items, versions, attempts, steps, fractions)
    SELECT p.position, row_number() OVER (), {resource}, 'progress', g.* FROM position p, (
        SELECT status, status, 'processing', 'processing', batch, worker, array_agg(key), array_agg(version),
               array_agg(attempts), array_agg(step), array_agg(fraction)
        FROM told GROUP BY status, batch, worker
    ) g
)
SELECT {notify} FROM position"""
        )
        .format(**item_names(workflow), notify=NOTIFY_WATCHERS)
        .as_bytes(None)
    )


async def append_state(connection: Connection, resource: str) -> None:
    """Appends that the state of a workflow, or of its external API, has changed: an entry without items, of kind
    `workflow`. What the state is now, its own table says; so watchers learn of it in the order of the log.
    """
    await connection.execute(
        """/* append_state */
        INSERT INTO status_event (position, part, resource, kind, from_status, to_status, items, versions, attempts)
        SELECT nextval('status_event_position'), 1, %(resource)s, %(kind)s, '', '', '{}', '{}', '{}'
        WHERE pg_current_xact_id() IS NOT NULL""",  # drawn before the position, as the horizon needs it
        {"resource": resource, "kind": STATE},
    )
    await connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, resource))
