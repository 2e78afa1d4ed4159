"""What users do to many items, by key or by filter, all or nothing or in part: set a status, requeue what failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from psycopg import sql

from shared.db.arrays import BIGINTS, array_of
from shared.db.engine import Connection
from shared.db.statement import item_names, literal
from shared.db.writer import NOTIFY, Alike, Write, compose
from shared.errors import Outcome
from shared.machine import UNCHANGED
from shared.table import TransitionTable
from shared.workflow import ItemKey, Workflow

TAKEN_CHANNEL = "curation_taken"
"""Where it is announced that users took items from workers; the payload is the resource."""
STATEMENTS_MAX = 512
"""Composed statements that are kept; each filter of its own shape is one more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBatch:
    """The row of the batch that a call is to leave behind: who asked for what, and why."""

    status: str
    actor: str = ""
    reason: str = ""
    request_id: UUID | None = None
    """A second call under the same one does nothing."""
    digest: bytes = b""
    """A hash of what was asked, which tells a repetition from another request under the same id."""


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
    batch: NewBatch | None
    """The batch to be made; without one nothing changes, and the answer is what would."""
    weight: float = 1.0
    """How many of its items are claimed for each item of a batch of normal priority."""
    allow_partial: bool = False
    cancel_in_flight: bool = False
    items_max: int = 100_000
    """More matching items than this, and nothing changes."""
    outcomes_max: int = 1_000
    """So many outcomes come back at most; all are stored with the batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curated:
    """What a call did, or without a batch would do."""

    requested: int
    """Items asked for, or matched: one more than `items_max` when there are too many."""
    changed: int
    queued: int
    """How many of the changed were queued for enrichment."""
    counts: Mapping[str, int]
    """Items left unchanged, by reason."""
    outcomes: Sequence[Outcome]
    """The first of them, in order of key; those that could not change come first."""
    position: int | None
    """Where in the log the changes are; None when nothing changed."""
    batch: int | None
    """The batch: None when none was to be made, and for a request_id under which something was done before."""
    made_at: datetime | None
    """When the new batch was made; None when none was."""
    log: UUID
    """Which log the position is of."""

    @property
    def refused(self) -> int:
        """Items that could not change; those that already were what was asked for do not count."""
        return sum(n for reason, n in self.counts.items() if reason != UNCHANGED)


async def curate(connection: Connection, workflow: Workflow, table: TransitionTable, call: CurateCall) -> Curated:
    """Does it to every item that may take it, and tells which may not. One statement: it needs no transaction.

    Without `allow_partial`, one item that may not leaves all as they are: ask `refused` of the answer. A batch whose
    request_id was used before is not made, and nothing changes.

    Raises:
        psycopg.errors.UniqueViolation: a call with the same request_id has just been committed.
    """
    batch = call.batch
    parameters = {
        **call.parameters,
        "resource": workflow.resource,
        "weight": call.weight,
        "partial": call.allow_partial,
        "items_max": call.items_max,
        "outcomes_max": call.outcomes_max,
        "keys": None if call.keys is None else array_of(workflow.key, call.keys),
        "versions": None if call.versions is None else BIGINTS.array(call.versions),
    }
    if batch is not None:
        parameters |= {
            "status": batch.status,
            "actor": batch.actor,
            "reason": batch.reason,
            "request_id": batch.request_id,
            "digest": batch.digest,
        }
    statement = batch_statement(
        workflow,
        table,
        trigger=call.trigger,
        cancel_in_flight=call.cancel_in_flight,
        where=None if call.where is None else call.where.as_string(None),
        versioned=call.versions is not None,
        new_batch=batch is not None,
    )
    cursor = await connection.execute(statement, parameters)
    row = await cursor.fetchone()
    assert row is not None
    requested, changed, queued, counts, position, outcomes, batch_id, made_at, log, _ = row
    return Curated(
        requested=requested,
        changed=changed,
        queued=queued,
        counts=counts,
        outcomes=[Outcome(*outcome) for outcome in outcomes or ()],
        position=position,
        batch=batch_id,
        made_at=made_at,
        log=log,
    )


# Arrays go in binary: as text, 100,000 UUIDs take the driver an eighth of a second instead of a sixtieth.
_NO_BATCH = sql.SQL("batch AS MATERIALIZED (SELECT NULL::bigint AS id),\n")
_NEW_BATCH = sql.SQL(
    """batch AS MATERIALIZED (
    SELECT nextval('status_batch_id_seq') AS id
    WHERE NOT EXISTS (SELECT FROM status_batch WHERE request_id = %(request_id)s::uuid)
),
"""
)
_ASKED = sql.SQL(
    """asked AS MATERIALIZED (
    SELECT * FROM unnest(%(keys)b::{key_type}[], %(versions)b::bigint[]) AS asked (key, version)
),
"""
)
# Where the queue is now: the turn of who is next.
FRONT = sql.SQL(
    """front AS MATERIALIZED (
    SELECT coalesce((SELECT s.{turn} FROM {source} s WHERE s.{turn} IS NOT NULL
                     ORDER BY s.{turn}, s.{key} LIMIT 1), 0) AS turn
),
"""
)
_TURN = sql.SQL("(SELECT turn FROM front) + (row_number() OVER (ORDER BY locked.key) - 1) / %(weight)s::float8")
_BY_KEY = sql.SQL(
    """{source} s WHERE s.{key} = ANY(%(keys)b::{key_type}[]) AND EXISTS (SELECT FROM batch)
    ORDER BY s.{key} {lock}"""
)
_BY_VERSION = sql.SQL(
    """asked a JOIN {source} s ON s.{key} = a.key WHERE EXISTS (SELECT FROM batch)
    ORDER BY s.{key} {lock}"""
)
_BY_FILTER = sql.SQL(
    """{source} s WHERE {where} AND EXISTS (SELECT FROM batch)
    ORDER BY s.{key} LIMIT %(items_max)s + 1 {lock}"""
)
# NOT IN is hashed whatever the planner guesses of the arrays; an anti-join of two guesses may become a loop in a loop.
_MISSING = sql.SQL(
    """UNION ALL
    SELECT a.key, 'not_found', NULL, NULL, NULL FROM unnest(%(keys)b::{key_type}[]) AS a (key)
    WHERE (SELECT found FROM tally) < cardinality(%(keys)b::{key_type}[]) AND a.key NOT IN (SELECT key FROM judged)"""
)
_LEFT_OUT = sql.SQL(
    """tally AS MATERIALIZED (
    SELECT count(*) AS found, count(*) FILTER (WHERE verdict = 'changed') AS changed,
           count(*) FILTER (WHERE verdict = 'changed' AND batch_effect = 'given') AS queued
    FROM judged
),
left_out AS MATERIALIZED (
    SELECT key, verdict AS reason, status, queue, version FROM judged WHERE verdict <> 'changed'
    {missing}
),
reasons AS MATERIALIZED (SELECT reason, count(*) AS n FROM left_out GROUP BY reason),
gate AS MATERIALIZED (
    SELECT found <= %(items_max)s AND EXISTS (SELECT FROM batch)
       AND (%(partial)s OR NOT EXISTS (SELECT FROM reasons WHERE reason <> 'unchanged')) AS open
    FROM tally
),
"""
)
_TOLD = sql.SQL(
    """,
named AS MATERIALIZED (
    SELECT row_number() OVER (ORDER BY reason = 'unchanged', key) AS ordinal,
           key::text AS item, reason, status, queue, version
    FROM left_out
),
told AS MATERIALIZED (
    SELECT found + coalesce((SELECT n FROM reasons WHERE reason = 'not_found'), 0) AS requested, changed, queued,
           coalesce((SELECT jsonb_object_agg(reason, n) FROM reasons), '{{}}') AS counts,
           (SELECT position FROM position) AS position
    FROM tally
)"""
)
# The index on request_id lets one of two calls under the same id through, and the other one fails as a whole.
_MADE = sql.SQL(
    """,
recorded AS (
    INSERT INTO batch_outcome (batch, ordinal, item, reason, status, queue_status, version)
    SELECT (SELECT id FROM batch), ordinal, item, reason, status, queue, version FROM named
    WHERE (SELECT open FROM gate)
),
made AS (
    INSERT INTO status_batch (id, resource, status, actor, reason, created_at, request_id, request_digest, weight,
                              requested, changed, queued, outcome_counts, position)
    OVERRIDING SYSTEM VALUE
    SELECT (SELECT id FROM batch), {resource}, %(status)s, %(actor)s, %(reason)s, statement_timestamp(),
           %(request_id)s::uuid, %(digest)s, %(weight)s, requested, changed, queued, counts, position
    FROM told WHERE (SELECT open FROM gate)
    RETURNING created_at
)"""
)
_NOT_MADE = sql.SQL(", made AS (SELECT NULL::timestamptz AS created_at)")
_ANSWER = sql.SQL(
    """SELECT told.*,
       (SELECT jsonb_agg(jsonb_build_array(item, reason, status, queue, version) ORDER BY ordinal)
        FROM named WHERE ordinal <= %(outcomes_max)s),
       (SELECT id FROM batch), (SELECT created_at FROM made), (SELECT id FROM event_log),
       (SELECT count({notify}) FROM position){taken}
FROM told"""
)
_TAKEN = sql.SQL(
    " + (SELECT count(pg_notify({channel}, {resource})) FROM position"
    " WHERE EXISTS (SELECT FROM changed WHERE queue = 'processing'))"
)


@lru_cache(STATEMENTS_MAX)
def batch_statement(
    workflow: Workflow,
    table: TransitionTable,
    *,
    trigger: str,
    cancel_in_flight: bool,
    where: str | None,
    versioned: bool,
    new_batch: bool,
) -> bytes:
    """A call's statement, which `docs/reference/statements.md` shows; with `where`, of the rows that it selects."""
    # A call that only asks what would happen locks nothing: it waits for nobody, and nobody for it.
    names = item_names(workflow) | {"lock": sql.SQL("FOR NO KEY UPDATE OF s" if new_batch else "")}
    before = (_NEW_BATCH if new_batch else _NO_BATCH) + FRONT.format(**names)
    if where is not None:
        chosen = _BY_FILTER.format(**names, where=sql.SQL(where))
    elif versioned:
        before, chosen = before + _ASKED.format(**names), _BY_VERSION.format(**names)
    else:
        chosen = _BY_KEY.format(**names)
    missing = _MISSING.format(**names) if where is None else sql.SQL("")
    return compose(
        workflow,
        Write(
            name=f"curate {workflow.resource}",
            before=before,
            chosen=chosen,
            rules=table.of_user(trigger, cancel_in_flight=cancel_in_flight),
            trigger=Alike(sql.SQL("{}::text").format(literal(trigger))),
            turn=_TURN,
            expected=sql.SQL("a.version") if versioned else Alike(sql.SQL("NULL::bigint")),
            cause=Alike(sql.SQL("(SELECT id FROM batch)")),
            between=_LEFT_OUT.format(missing=missing),
            gate=sql.SQL("(SELECT open FROM gate)" if new_batch else "false"),
            after=_TOLD.format() + (_MADE.format(**names) if new_batch else _NOT_MADE),
            answer=_ANSWER.format(
                notify=NOTIFY,
                taken=_TAKEN.format(channel=sql.Literal(TAKEN_CHANNEL), resource=sql.Placeholder("resource"))
                if cancel_in_flight
                else sql.SQL(""),
            ),
        ),
    )
