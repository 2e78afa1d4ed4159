"""What users do to one item each: many calls, one statement, one commit.

It only carries out what goes through. A call whose item is missing, held by somebody, refused or as it should be
already, or whose request_id was used before, leaves nothing behind: `curate` carries that one out alone, waits where
it has to, and says why not. So no call waits for the item of another, and what is common needs no outcomes and no gate.

All calls share one position in the log; each has its own batch and its own part there, and its item is left as `curate`
would leave it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from psycopg import sql

from shared.db.arrays import BIGINTS, DOUBLES, TEXTS, UUIDS, array_of
from shared.db.curate import FRONT, CurateCall, Curated, NewBatch
from shared.db.engine import Connection
from shared.db.statement import item_names
from shared.db.writer import NOTIFY, Write, compose
from shared.machine import REQUEUE, curate_trigger
from shared.table import TransitionTable
from shared.workflow import ItemKey, Workflow


def concerns_one(call: CurateCall) -> bool:
    """Whether `curate_each` may carry it out: it wants one item changed, and takes it from no worker."""
    return call.keys is not None and len(call.keys) == 1 and call.batch is not None and not call.cancel_in_flight


def key_of(call: CurateCall) -> ItemKey:
    """The item of a call that concerns one."""
    assert call.keys is not None
    (key,) = call.keys
    return key


def batch_of(call: CurateCall) -> NewBatch:
    """The batch that such a call is to leave behind."""
    assert call.batch is not None
    return call.batch


async def curate_each(
    connection: Connection, workflow: Workflow, table: TransitionTable, calls: Sequence[CurateCall]
) -> list[Curated | None]:
    """Carries out calls that concern one item each, no two of them the same; None for those that it left alone.

    Raises:
        psycopg.errors.UniqueViolation: a call with the request_id of one has just been committed; nothing changed.
    """
    cursor = await connection.execute(curate_statement(workflow, table), _parameters(workflow, calls))
    curated: list[Curated | None] = [None] * len(calls)
    for n, queued, batch, made_at, position, log, _ in await cursor.fetchall():
        curated[n - 1] = Curated(
            requested=1,
            changed=1,
            queued=queued,
            counts={},
            outcomes=[],
            position=position,
            batch=batch,
            made_at=made_at,
            log=log,
        )
    return curated


def _parameters(workflow: Workflow, calls: Sequence[CurateCall]) -> dict[str, Any]:
    keys, batches = [key_of(call) for call in calls], [batch_of(call) for call in calls]
    return {
        "resource": workflow.resource,
        "keys": array_of(workflow.key, keys),
        "triggers": TEXTS.array([call.trigger for call in calls]),
        "versions": BIGINTS.array([call.versions[0] if call.versions else None for call in calls]),
        "weights": DOUBLES.array([call.weight for call in calls]),
        "statuses": TEXTS.array([batch.status for batch in batches]),
        "actors": TEXTS.array([batch.actor for batch in batches]),
        "reasons": TEXTS.array([batch.reason for batch in batches]),
        "request_ids": UUIDS.array([batch.request_id for batch in batches]),
        "digests": [batch.digest for batch in batches],
    }


# Whether a request_id was used is looked up for each by itself: a join might be planned, once for all, while there are
# few batches, and read all of them ever after.
_ASKED = sql.SQL(
    """asked AS MATERIALIZED (
    SELECT a.*, nextval('status_batch_id_seq') AS batch,
           (SELECT b.id FROM status_batch b WHERE b.request_id = a.request_id) AS done_by
    FROM unnest(%(keys)b::{key_type}[], %(triggers)b::text[], %(versions)b::bigint[], %(weights)b::float8[],
                %(statuses)b::text[], %(actors)b::text[], %(reasons)b::text[], %(request_ids)b::uuid[],
                %(digests)b::bytea[])
         WITH ORDINALITY AS a (key, trigger, expected, weight, asked_status, actor, reason, request_id, digest, n)
),
"""
)
# Row by row for the same reason. No order to lock in is needed, since nobody waits here.
_FREE = sql.SQL(
    """asked a CROSS JOIN LATERAL (
        SELECT * FROM {source} s WHERE s.{key} = a.key FOR NO KEY UPDATE SKIP LOCKED
    ) s WHERE a.done_by IS NULL"""
)
_CARRIED = {
    name: sql.SQL("a.{}").format(sql.Identifier(name))
    for name in ("n", "weight", "asked_status", "actor", "reason", "request_id", "digest")
}
# In order of request_id: otherwise two groups with the same ids could wait for each other.
_MADE = sql.SQL(
    """,
made AS (
    INSERT INTO status_batch (id, resource, status, actor, reason, created_at, request_id, request_digest, weight,
                              requested, changed, queued, outcome_counts, position)
    OVERRIDING SYSTEM VALUE
    SELECT c.cause, {resource}, c.asked_status, c.actor, c.reason, statement_timestamp(), c.request_id, c.digest,
           c.weight, 1, 1, (c.batch_effect = 'given')::integer, '{{}}', p.position
    FROM changed c, position p ORDER BY c.request_id
)"""
)
_ANSWER = sql.SQL(
    """SELECT c.n, (c.batch_effect = 'given')::integer, c.cause, statement_timestamp(), p.position,
       (SELECT id FROM event_log), (SELECT {notify} FROM position)
FROM changed c, position p"""
)


@lru_cache
def curate_statement(workflow: Workflow, table: TransitionTable) -> bytes:
    """For any trigger of users."""
    names = item_names(workflow)
    triggers = (REQUEUE, *map(curate_trigger, workflow.curation.statuses))
    return compose(
        workflow,
        Write(
            name=f"curate_each {workflow.resource}",
            before=_ASKED.format(**names) + FRONT.format(**names),
            chosen=_FREE.format(**names),
            rules=[rule for trigger in triggers for rule in table.of_user(trigger)],
            trigger=sql.SQL("a.trigger"),
            turn=sql.SQL("(SELECT turn FROM front)"),
            expected=sql.SQL("a.expected"),
            cause=sql.SQL("a.batch"),
            carried=_CARRIED,
            returned=sql.SQL(", j.batch_effect"),
            after=_MADE.format(**names),
            answer=_ANSWER.format(notify=NOTIFY),
        ),
    )
