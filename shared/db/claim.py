"""Claims: takes from the queue whose turn it is, past whatever other workers hold.

The turn is a virtual time, start-time fair queueing: a batch's items are given turns one after another from where the
queue then is, so that a batch of ten queued behind one of 100,000 is served between its next items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf

from psycopg import sql

from shared.db.arrays import BIGINTS
from shared.db.engine import Connection
from shared.db.prepared import Bound, Prepared, Rows
from shared.db.statement import after_comma, commas, item_names, literal
from shared.db.writer import NOTIFY_WATCHERS, Alike, Write, compose
from shared.machine import CLAIM
from shared.table import TransitionTable
from shared.workflow import Item, Workflow

SIZE_MAX = 2000
"""Items of one claim, at most. Claims are made one after another, and a busy worker waits for each: the more items it
brings, the more share its plan, its wait for the disk and its round trip. With three thousand a drain is no faster."""

# Exactly the queued items have a turn, or a time before which they are not claimed. So their status is not asked for:
# the planner would have to guess how many have it. Each search has an index of its own, and walks over no rows of the
# other. Items that had to wait go first: they have had their turn before. Either search may fill the limit; no more
# rows are locked than are taken. The most that the limit can be stands in the text, for a plan that is made once cannot
# see the limit itself. Whether anything may be claimed is asked before either search begins.
_CHOSEN = sql.SQL(
    """(
    SELECT * FROM (
        SELECT * FROM (
            SELECT {columns} FROM {source} s
            WHERE s.{run_at} <= now() ORDER BY s.{run_at} LIMIT {size_max} FOR NO KEY UPDATE SKIP LOCKED
        ) late
        UNION ALL
        SELECT * FROM (
            SELECT {columns} FROM {source} s
            WHERE s.{turn} >= %(from_turn)s ORDER BY s.{turn}, s.{key} LIMIT {size_max} FOR NO KEY UPDATE SKIP LOCKED
        ) next
        LIMIT %(limit)s
    ) s
    WHERE NOT EXISTS (SELECT FROM workflow_state w WHERE w.resource = {resource} AND w.paused_at IS NOT NULL)
      AND NOT EXISTS (SELECT FROM api_state a WHERE a.api = {api} AND NOT %(probe)s
                      AND (a.broken_since IS NOT NULL OR a.held_until > clock_timestamp()))
      AND NOT EXISTS (SELECT FROM worker_session o WHERE o.id = %(session)s AND o.ended_at IS NOT NULL)
) s"""
)
_CLAIMED = sql.SQL(
    """, noted AS (
    INSERT INTO worker_claim (position, resource, session) SELECT position, {resource}, %(session)s FROM position
)
SELECT (SELECT max(had_turn) FROM judged), (SELECT position FROM position), c.key, c.new_version, c.to_attempts{columns}
FROM changed c"""
)
# Its commit does not wait for the disk, and the lock that a NOTIFY takes of the whole server is not held meanwhile.
_FOLLOW_UP = sql.SQL(
    """/* follow_up {name} */
WITH forgotten AS (
    DELETE FROM worker_claim
    WHERE position = ANY(%(settled)s::bigint[]) AND session = %(session)s AND resource = %(resource)s
)
SELECT {notify}, set_config('synchronous_commit', 'off', true)"""
)


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim got."""

    items: Sequence[Item]
    turn: float
    """Where the next claim may start; what is before this turn is taken, or locked by others for now."""
    position: int = 0
    """In the log, which names the claim; 0 of one that got nothing."""


async def claim(
    connection: Connection,
    workflow: Workflow,
    table: TransitionTable,
    *,
    session: int,
    limit: int,
    from_turn: float = -inf,
    probe: bool = False,
) -> Claimed:
    """Marks up to `limit` items as processing by this worker session, and returns them.

    Skips rows that others have locked; so any number of workers claim at once without waiting, or meeting. Gets
    nothing while the workflow is paused, or its external API is held or broken, or for a session that is over. A claim
    that got something is to be followed up (`follow_up`).

    Args:
        connection: one statement is all it takes, so it need not be in a transaction.
        workflow: whose items.
        table: its rules.
        session: the worker's.
        limit: how many at most, and no more than `SIZE_MAX`.
        from_turn: not what is before this turn. A claim that remembers where the last one ended does not walk over
            the remains of claimed rows, which vacuum cannot remove while an old transaction is open.
        probe: claims although the API is broken, to see whether it still is.
    """
    parameters = _parameters(workflow, session=session, limit=limit, from_turn=from_turn, probe=probe)
    rows = await claim_statement(workflow, table).run(connection, parameters)
    return _claimed(_places(workflow), rows, from_turn)


@dataclass(frozen=True, slots=True)
class ReadyClaim:
    """A claim from the front of the queue that has only to be sent (`bound.send_ahead`)."""

    bound: Bound
    limit: int
    _places: Sequence[tuple[int, str]]

    async def tell(self, take: Callable[[Claimed], None]) -> None:
        """Waits until the claim that was sent is committed; `take` is given what it got before that.

        No task has to run for it.

        Raises:
            psycopg.Error: it failed, or the connection is lost. If `take` was called, what became of it is unknown.
        """
        await self.bound.tell(lambda rows: take(_claimed(self._places, rows, -inf)))


async def ready_claim(
    connection: Connection, workflow: Workflow, table: TransitionTable, *, session: int, limit: int
) -> ReadyClaim:
    """Gets a claim ready, for an item that may come at any time. The connection is in autocommit."""
    parameters = _parameters(workflow, session=session, limit=limit)
    bound = await claim_statement(workflow, table).bind(connection, parameters)
    return ReadyClaim(bound, limit, _places(workflow))


def _parameters(
    workflow: Workflow, *, session: int, limit: int, from_turn: float = -inf, probe: bool = False
) -> dict[str, object]:
    return {
        "limit": limit,
        "session": session,
        "resource": workflow.resource,
        "from_turn": from_turn,
        "probe": probe,
    }


def _places(workflow: Workflow) -> Sequence[tuple[int, str]]:
    """Of each data column its place in a row of the answer, and its name."""
    return [*enumerate((column.name for column in workflow.data_columns), start=5)]


def _claimed(places: Sequence[tuple[int, str]], rows: Rows, from_turn: float) -> Claimed:
    items = [Item(row[2], row[3], row[4], {name: row[n] for n, name in places}) for row in rows]
    if not rows:
        return Claimed(items, from_turn)
    turn, position, *_ = rows[0]
    return Claimed(items, from_turn if turn is None else turn, position)


async def follow_up(connection: Connection, workflow: Workflow, *, session: int, settled: Sequence[int]) -> None:
    """Does what is left once a claim is committed and its items have begun; nobody waits for it.

    Watchers are told of the claim, which they would find by themselves within a second. Earlier claims of which nothing
    is in hand any more are forgotten; otherwise that would happen only once their session is over.

    Args:
        connection: in autocommit.
        workflow: of the claim.
        session: the worker's.
        settled: its earlier claims of which nothing is in hand, by their positions.
    """
    parameters = {"resource": workflow.resource, "session": session, "settled": BIGINTS.array(settled)}
    await _follow_up(workflow).run(connection, parameters)


@lru_cache
def _follow_up(workflow: Workflow) -> Prepared:
    return Prepared.of(_FOLLOW_UP.format(name=sql.SQL(workflow.resource), notify=NOTIFY_WATCHERS).as_bytes(None))


@lru_cache
def claim_statement(workflow: Workflow, table: TransitionTable) -> Prepared:
    """The statement of every claim; `docs/reference/statements.md` shows one."""
    names = item_names(workflow)
    needed = [names[name] for name in ("key", "version", "status", "queue", "attempts", "batch", "event", "turn")]
    columns = [sql.Identifier(column.name) for column in workflow.data_columns]
    # By number: a name with something before it may be longer than PostgreSQL keeps.
    taken = [sql.Identifier(f"data {n}") for n in range(len(columns))]
    statement = compose(
        workflow,
        Write(
            name=f"claim {workflow.resource}",
            chosen=_CHOSEN.format(
                **names,
                columns=commas(sql.SQL("s.{}").format(name) for name in needed),
                size_max=sql.Literal(SIZE_MAX),
                api=literal(workflow.api),
            ),
            rules=table.of(CLAIM),
            trigger=Alike(sql.SQL("'claim'::text")),
            worker=Alike(sql.SQL("%(session)s::bigint")),
            carried={"had_turn": sql.SQL("s.{turn}").format(**names)},
            returned=after_comma(sql.SQL("s.{} AS {}").format(*pair) for pair in zip(columns, taken, strict=True)),
            answer=_CLAIMED.format(**names, columns=after_comma(sql.SQL("c.{}").format(name) for name in taken)),
        ),
    )
    return Prepared.of(statement)
