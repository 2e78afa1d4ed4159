"""Worker sessions: one row per worker process that beats, and the rescue of items whose session is over.

The database's clock decides, not the workers'. A heartbeat is one small update, however many items a worker holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from psycopg import sql
from psycopg.rows import class_row

from shared.db.engine import Connection
from shared.db.in_hand import OVER, forget_claims, in_hand
from shared.db.statement import item_names
from shared.db.writer import NOTIFY, Alike, Write, compose
from shared.failure import WORKER_LOST
from shared.machine import RESCUE
from shared.table import TransitionTable
from shared.workflow import Workflow

RESCUE_SIZE_MAX = 1000
"""Items rescued by one statement at most; the next call takes the next ones."""
RESCUE_CLAIMS_MAX = 50
"""Claims that one call looks at, the oldest first, item by item; there may be two thousand items in each."""
ENDED_KEPT_S = 86_400
"""A session that ended can be looked at for so long; who opens one removes those that are older."""


@dataclass(frozen=True, slots=True)
class WorkerSession:
    """One run of a worker."""

    id: int
    host: str
    version: str
    resources: Sequence[str]
    state: str
    """`alive`, `silent` (no beat for too long) or `ended`, by the clock of the database."""
    started_at: datetime
    beat_at: datetime
    ended_at: datetime | None
    in_flight: int
    done: int
    failed: int


SILENT = "greatest(beat_at, pg_postmaster_start_time()) < clock_timestamp() - make_interval(secs => expiry_s)"
"""SQL, of a session: it has not beaten for longer than it said it may. While PostgreSQL was away nobody could."""
ALIVE = f"ended_at IS NULL AND NOT {SILENT}"
"""SQL, of a session."""
_COLUMNS = f"""id, host, version, resources,
    CASE WHEN ended_at IS NOT NULL THEN 'ended' WHEN {SILENT} THEN 'silent' ELSE 'alive' END AS state,
    started_at, beat_at, ended_at, in_flight, done, failed"""


async def open_session(
    connection: Connection, *, host: str, version: str, resources: Sequence[str], expiry_s: float = 30.0
) -> int:
    """Starts a session and returns its id. `expiry_s`: after so long without a beat it counts as dead."""
    await connection.execute(
        "DELETE FROM worker_session WHERE ended_at < clock_timestamp() - make_interval(secs => %s)", (ENDED_KEPT_S,)
    )
    cursor = await connection.execute(
        "INSERT INTO worker_session (host, version, resources, expiry_s) VALUES (%s, %s, %s, %s) RETURNING id",
        (host, version, list(resources), expiry_s),
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def beat(connection: Connection, session: int, *, in_flight: int, done: int, failed: int) -> bool:
    """Says that the worker lives. Returns False when the session is over: its items may be with others by now."""
    cursor = await connection.execute(
        """UPDATE worker_session SET beat_at = clock_timestamp(), in_flight = %s, done = %s, failed = %s
           WHERE id = %s AND ended_at IS NULL""",
        (in_flight, done, failed, session),
    )
    return cursor.rowcount == 1


async def close_session(connection: Connection, session: int) -> None:
    """Ends a session; what it still has may be rescued at once."""
    await connection.execute("UPDATE worker_session SET ended_at = clock_timestamp() WHERE id = %s", (session,))


async def list_sessions(
    connection: Connection, *, resource: str | None, with_ended: bool, before: int | None, limit: int
) -> Sequence[WorkerSession]:
    """Sessions, newest first, those with an id below `before`; of workers that serve `resource` where it is named."""
    async with connection.cursor(row_factory=class_row(WorkerSession)) as cursor:
        await cursor.execute(
            f"""/* list_sessions */
            SELECT {_COLUMNS} FROM worker_session
            WHERE (%(resource)s::text IS NULL OR %(resource)s = ANY(resources))
              AND (ended_at IS NULL
                   OR (%(with_ended)s AND ended_at > clock_timestamp() - make_interval(secs => %(kept)s)))
              AND (%(before)s::bigint IS NULL OR id < %(before)s)
            ORDER BY id DESC LIMIT %(limit)s""",  # noqa: S608 # our own names
            {
                "resource": resource,
                "with_ended": with_ended,
                "kept": ENDED_KEPT_S,
                "before": before,
                "limit": limit,
            },
        )
        return await cursor.fetchall()


async def find_session(connection: Connection, session: int) -> WorkerSession | None:
    """A session; None when it is over and was removed since."""
    async with connection.cursor(row_factory=class_row(WorkerSession)) as cursor:
        await cursor.execute(f"SELECT {_COLUMNS} FROM worker_session WHERE id = %s", (session,))  # noqa: S608
        return await cursor.fetchone()


async def rescue(connection: Connection, workflow: Workflow, table: TransitionTable) -> int:
    """Ends sessions that have been silent for longer than they said they may, and takes back items of ended ones.

    Returns how many items were rescued, `RESCUE_SIZE_MAX` at most.
    """
    await connection.execute(_END_SILENT)
    parameters = {
        "resource": workflow.resource,
        "limit": RESCUE_SIZE_MAX,
        "claims_max": RESCUE_CLAIMS_MAX,
        "error": WORKER_LOST.message,
        "failure": WORKER_LOST.group(workflow.resource),
        "upstream": WORKER_LOST.upstream,
        "kind": WORKER_LOST.kind,
    }
    cursor = await connection.execute(_statement(workflow, table), parameters)
    row = await cursor.fetchone()
    assert row is not None
    await forget_claims(connection, workflow, limit=RESCUE_CLAIMS_MAX)
    return int(row[0])


_END_SILENT = f"""/* end_silent */
UPDATE worker_session SET ended_at = clock_timestamp()
WHERE id IN (SELECT id FROM worker_session WHERE ended_at IS NULL AND {SILENT}
             ORDER BY id FOR UPDATE SKIP LOCKED)"""  # noqa: S608 - our own words
# A step without order and limit: with them the planner walks over the whole table in order of key until it has enough.
_LOST = sql.SQL(
    """orphaned AS MATERIALIZED (
    SELECT * FROM worker_claim WHERE resource = {resource} AND {is_over} ORDER BY position LIMIT %(claims_max)s
),
lost AS MATERIALIZED (SELECT DISTINCT s.{key} AS key FROM {in_hand}),
"""
)
_RESCUED = sql.SQL(
    """lost l JOIN {source} s ON s.{key} = l.key
    WHERE s.{queue} = 'processing' AND {is_over}
    ORDER BY s.{key}
    LIMIT %(limit)s
    FOR NO KEY UPDATE OF s SKIP LOCKED"""
)
_GROUPED = sql.SQL(
    """,
grouped AS (
    INSERT INTO failure_group (id, resource, upstream, kind, message)
    SELECT %(failure)s, {resource}, %(upstream)s, %(kind)s, %(error)s
    WHERE EXISTS (SELECT FROM changed WHERE to_queue = 'failed')
    ON CONFLICT (id) DO UPDATE SET last_seen_at = clock_timestamp()
)"""
)
# As between attempts, exponential with full jitter: what died together must not come back together, or an item that
# kills its workers would take those beside it along, each time.
_DELAY = sql.SQL("random() * least({longest}, {first} * 2 ^ least(s.{attempts} - 1, 60))")
_ANSWER = sql.SQL("SELECT (SELECT count(*) FROM changed), (SELECT count({notify}) FROM position)").format(notify=NOTIFY)


@lru_cache
def _statement(workflow: Workflow, table: TransitionTable) -> bytes:
    names, limits = item_names(workflow), workflow.limits
    return compose(
        workflow,
        Write(
            name=f"rescue {workflow.resource}",
            before=_LOST.format(
                **names, in_hand=in_hand(workflow, "orphaned"), is_over=OVER.format(session=sql.SQL("session"))
            ),
            chosen=_RESCUED.format(**names, is_over=OVER.format(session=sql.SQL("s.{worker}").format(**names))),
            rules=table.of(RESCUE),
            trigger=Alike(sql.SQL("'rescue'::text")),
            error=Alike(sql.SQL("%(error)s::text")),
            failure=Alike(sql.SQL("%(failure)s::bigint")),
            delay_s=_DELAY.format(
                **names, longest=sql.Literal(float(limits.backoff_max_s)), first=sql.Literal(float(limits.backoff_s))
            ),
            worker=sql.SQL("s.{worker}").format(**names),
            after=_GROUPED.format(**names),
            answer=_ANSWER,
        ),
    )
