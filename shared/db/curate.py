"""What users do to many items, by key or by filter, all or nothing or in part: set a status, requeue what failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg import sql

from shared.db.engine import Connection
from shared.db.statement import item_names
from shared.db.writer import NOTIFY, Write, compose
from shared.errors import Outcome
from shared.machine import UNCHANGED
from shared.table import TransitionTable
from shared.workflow import ItemKey, Workflow


@dataclass(frozen=True, slots=True, kw_only=True)
class CurateCall:
    """What a caller asks of many items."""

    trigger: str
    """What happens to them: `curate_trigger(status)`, or `requeue`."""
    keys: Sequence[ItemKey] | None = None
    """These items, none twice; None when `where` says which."""
    versions: Sequence[int | None] | None = None
    """The expected version of each key, None where any will do."""
    where: sql.Composable | None = None
    """A condition over the source as `s`; its parameters are in `parameters`."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    batch: int | None = None
    """The batch row of this call; None with `validate_only`."""
    weight: float = 1.0
    """How many of its items take their turn for one of a batch of normal priority."""
    allow_partial: bool = False
    validate_only: bool = False
    cancel_in_flight: bool = False
    items_max: int = 100_000
    """More matching items than this, and nothing changes."""
    outcomes_max: int = 1_000
    """So many outcomes come back at most; all are stored with the batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curated:
    """What a call did, or with `validate_only` would do."""

    requested: int
    """Items asked for, or matched: one more than `items_max` when there are too many."""
    changed: int
    queued: int
    """Those of the changed that were queued for enrichment."""
    counts: Mapping[str, int]
    """Items left unchanged, by reason."""
    outcomes: Sequence[Outcome]
    """The first of them, in order of key."""
    position: int | None
    """Where in the log the changes are; None when nothing changed."""

    @property
    def refused(self) -> int:
        """Items that could not change; those that already were what was asked for do not count."""
        return sum(n for reason, n in self.counts.items() if reason != UNCHANGED)


async def curate(connection: Connection, workflow: Workflow, table: TransitionTable, call: CurateCall) -> Curated:
    """Does it to every item that may take it, and tells which may not.

    Without `allow_partial`, one item that may not leaves all as they are: ask `refused` of the answer.
    """
    parameters = {
        **call.parameters,
        "resource": workflow.resource,
        "batch": call.batch,
        "weight": call.weight,
        "partial": call.allow_partial,
        "validate_only": call.validate_only,
        "items_max": call.items_max,
        "outcomes_max": call.outcomes_max,
        "keys": None if call.keys is None else list(call.keys),
        "versions": call.versions and list(call.versions),
    }
    cursor = await connection.execute(_statement(workflow, table, call), parameters)
    row = await cursor.fetchone()
    assert row is not None
    requested, changed, queued, counts, outcomes, position, _ = row
    return Curated(
        requested=requested,
        changed=changed,
        queued=queued,
        counts=counts or {},
        outcomes=[Outcome(*outcome) for outcome in outcomes or ()],
        position=position,
    )


_ASKED = sql.SQL(
    """asked AS MATERIALIZED (
    SELECT * FROM unnest(%(keys)s::{key_type}[], %(versions)s::bigint[]) AS asked (key, version)
),
"""
)
# Where the queue is now: the turn of who is next.
_FRONT = sql.SQL(
    """front AS MATERIALIZED (
    SELECT coalesce((SELECT s.{turn} FROM {source} s WHERE s.{queue} = 'queued' AND s.{run_at} IS NULL
                     ORDER BY s.{turn}, s.{key} LIMIT 1), 0) AS turn
),
"""
)
_TURN = sql.SQL("(SELECT turn FROM front) + (row_number() OVER (ORDER BY locked.key) - 1) / %(weight)s::float8")
_BY_KEY = sql.SQL("asked a JOIN {source} s ON s.{key} = a.key ORDER BY s.{key} FOR NO KEY UPDATE OF s")
_BY_FILTER = sql.SQL("{source} s WHERE {where} ORDER BY s.{key} LIMIT %(items_max)s + 1 FOR NO KEY UPDATE OF s")
# NOT IN is hashed whatever the planner guesses of the arrays; an anti-join of two guesses may become a loop in a loop.
_MISSING = sql.SQL(
    """UNION ALL
    SELECT a.key, 'not_found', NULL, NULL, NULL FROM asked a WHERE a.key NOT IN (SELECT key FROM locked)"""
)
_LEFT_OUT = sql.SQL(
    """left_out AS MATERIALIZED (
    SELECT key, verdict AS reason, status, queue, version FROM judged WHERE verdict <> 'changed'
    {missing}
),
reasons AS MATERIALIZED (SELECT reason, count(*) AS n FROM left_out GROUP BY reason),
gate AS MATERIALIZED (
    SELECT (%(partial)s OR NOT EXISTS (SELECT FROM reasons WHERE reason <> 'unchanged'))
       AND (SELECT count(*) FROM locked) <= %(items_max)s AS open
),
"""
)
_RECORDED = sql.SQL(
    """,
named AS MATERIALIZED (
    SELECT row_number() OVER (ORDER BY key) AS ordinal, key::text AS item, reason, status, queue, version FROM left_out
),
recorded AS (
    INSERT INTO batch_outcome (batch, ordinal, item, reason, status, queue_status, version)
    SELECT %(batch)s::bigint, ordinal, item, reason, status, queue, version FROM named
    WHERE (SELECT open FROM gate) AND NOT %(validate_only)s
)"""
)
_ANSWER = sql.SQL(
    """SELECT (SELECT count(*) FROM locked) + coalesce((SELECT n FROM reasons WHERE reason = 'not_found'), 0),
       j.changed, j.queued,
       (SELECT jsonb_object_agg(reason, n) FROM reasons),
       (SELECT jsonb_agg(jsonb_build_array(item, reason, status, queue, version) ORDER BY ordinal)
        FROM named WHERE ordinal <= %(outcomes_max)s),
       (SELECT position FROM position), (SELECT count({notify}) FROM position)
FROM (SELECT count(*) FILTER (WHERE verdict = 'changed') AS changed,
             count(*) FILTER (WHERE verdict = 'changed' AND batch_effect = 'given') AS queued FROM judged) j"""
).format(notify=NOTIFY)


def _statement(workflow: Workflow, table: TransitionTable, call: CurateCall) -> bytes:
    names = item_names(workflow)
    by_key = call.where is None
    given = sql.SQL("a.version") if by_key else sql.SQL("NULL::bigint")
    return compose(
        workflow,
        Write(
            name=f"curate {workflow.resource}",
            before=_FRONT.format(**names) + (_ASKED.format(**names) if by_key else sql.SQL("")),
            chosen=_BY_KEY.format(**names) if by_key else _BY_FILTER.format(**names, where=call.where),
            rules=table.of_user(call.trigger, cancel_in_flight=call.cancel_in_flight),
            trigger=sql.SQL("{}::text").format(sql.Literal(call.trigger)),
            turn=_TURN,
            expected=given,
            cause=sql.SQL("%(batch)s::bigint"),
            between=_LEFT_OUT.format(missing=_MISSING if by_key else sql.SQL("")),
            gate=sql.SQL("(SELECT open FROM gate) AND NOT %(validate_only)s"),
            after=_RECORDED,
            answer=_ANSWER,
        ),
    )
