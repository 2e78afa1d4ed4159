"""Ends attempts, many in one statement: fence by version, change the status, upsert the target, append the events.

Data is saved if and only if its item turns `completed`: both are the same statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from psycopg import sql
from sqlalchemy import Column, Table

from shared.db.arrays import BIGINTS, DOUBLES, TEXTS, Array, array_of
from shared.db.engine import Connection
from shared.db.prepared import Prepared
from shared.db.statement import after_comma, commas, item_names, table_name
from shared.db.values import array_type, element, to_array
from shared.db.writer import NOTIFY, Write, compose
from shared.failure import Failure
from shared.machine import COMPLETE, FAIL, FIND_NOTHING, POSTPONE, RELEASE, RETRY
from shared.table import TransitionTable
from shared.workflow import Item, ItemKey, Values, Workflow


@dataclass(slots=True)
class Result:
    """How one attempt ended. Not frozen: there is one for each item, and that takes three times as long to make."""

    item: Item
    """The item as it was claimed; its version is the fence."""
    trigger: str
    """`complete`, `find_nothing`, `retry`, `fail`, `release` or `postpone`."""
    error: str | None = None
    """What went wrong, for a curator to read."""
    failure: Failure | None = None
    """The same, without what differs from item to item."""
    delay_s: float = 0.0
    """Seconds until the next attempt, for `retry` and `postpone`."""
    values: Values | None = None
    """What to upsert, for `complete`; a column left out becomes NULL."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of some results."""

    saved: int
    """Committed with the caller's transaction."""
    dropped: int
    """Late: the item has another version by now, or is gone. Nothing was written for them."""


_GIVEN = sql.SQL(
    """given AS MATERIALIZED (
    SELECT * FROM unnest(%(keys)s::{key_type}[], %(versions)s::bigint[], %(triggers)s::text[], %(errors)s::text[],
                         %(failures)s::bigint[], %(delays)s::float8[]{arrays})
    WITH ORDINALITY AS given (key, version, trigger, error, failure, delay_s{names}, ordinal)
),
"""
)
_HELD = sql.SQL("given g JOIN {source} s ON s.{key} = g.key ORDER BY s.{key} FOR NO KEY UPDATE OF s")
# Several items may share a target row, and one statement may touch a row but once: the last result wins, as it would
# have one by one.
_UPSERT = sql.SQL(
    """,
upserted AS (
    INSERT INTO {target} ({columns})
    SELECT DISTINCT ON (c.{taken_key}) {taken}
    FROM changed c WHERE c.trigger = 'complete'
    ORDER BY c.{taken_key}, c.ordinal DESC
    ON CONFLICT ({target_key}) DO UPDATE SET {assignments}
)"""
)
# In order of id: of two workers that see the same groups at once, one waits for the other.
_GROUPED = sql.SQL(
    """,
grouped AS (
    INSERT INTO failure_group (id, resource, upstream, kind, message)
    SELECT id, {resource}, upstream, kind, message
    FROM unnest(%(groups)s::bigint[], %(upstreams)s::text[], %(kinds)s::text[], %(messages)s::text[])
         AS g (id, upstream, kind, message)
    ORDER BY id
    ON CONFLICT (id) DO UPDATE SET last_seen_at = clock_timestamp()
)"""
)
# By number: a value of an enricher is not of its column's type until PostgreSQL has cast it.
_HELD_ROWS = sql.SQL(
    """/* held_rows */
WITH given AS MATERIALIZED (
    SELECT {key} AS key, n - 1 AS n FROM unnest(%(keys)s::{array_type}[]) WITH ORDINALITY AS given (key, n)
), free AS MATERIALIZED (
    SELECT t.{column} AS key FROM {table} t
    WHERE t.{column} = ANY(ARRAY(SELECT key FROM given)) FOR NO KEY UPDATE SKIP LOCKED
)
SELECT g.n FROM given g JOIN {table} t ON t.{column} = g.key WHERE t.{column} NOT IN (SELECT key FROM free)"""
)
_ANSWER = sql.SQL("SELECT (SELECT count(*) FROM changed), (SELECT count({notify}) FROM position)").format(notify=NOTIFY)


async def finish(
    connection: Connection, workflow: Workflow, table: TransitionTable, results: Sequence[Result]
) -> Finished:
    """Writes how these attempts ended, those of old versions left out.

    Raises:
        psycopg.Error, TypeError, ValueError, RecursionError: the target refuses a value; nothing was changed.
    """
    groups = {f.group(workflow.resource): f for r in results if (f := r.failure) is not None}
    parameters: dict[str, Any] = {
        "resource": workflow.resource,
        "keys": array_of(workflow.key, [r.item.key for r in results]),
        "versions": BIGINTS.array([r.item.version for r in results]),
        "triggers": TEXTS.array([r.trigger for r in results]),
        "errors": TEXTS.array([r.error for r in results]),
        "failures": BIGINTS.array([r.failure and r.failure.group(workflow.resource) for r in results]),
        "delays": DOUBLES.array([r.delay_s for r in results]),
        "groups": BIGINTS.array(list(groups)),
        "upstreams": TEXTS.array([failure.upstream for failure in groups.values()]),
        "kinds": TEXTS.array([failure.kind for failure in groups.values()]),
        "messages": TEXTS.array([failure.message for failure in groups.values()]),
    }
    rows = [r.values for r in results]
    for n, column in enumerate(workflow.value_columns):
        parameters[f"value_{n}"] = to_array(column, rows)
    [(saved, _)] = await _statement(workflow, table).run(connection, parameters)
    return Finished(saved=saved, dropped=len(results) - saved)


async def held_keys(connection: Connection, workflow: Workflow, results: Sequence[Result]) -> set[ItemKey]:
    """Items whose row, or whose target's row, somebody else has locked: `finish` would wait. Needs no transaction.

    Raises:
        LockNotAvailable: a table is locked as a whole.
    """
    key, target_key = workflow.key, workflow.target.c[workflow.target_key]
    keys = array_of(key, [result.item.key for result in results])
    target_keys = to_array(target_key, [result.values for result in results])
    held = [
        *await _held(connection, workflow.source, key, keys),
        *await _held(connection, workflow.target, target_key, target_keys),
    ]
    return {results[n].item.key for n in held}


async def _held(connection: Connection, table: Table, column: Column[Any], keys: Array) -> list[int]:
    """Which of these keys are of rows that somebody else has locked, by number."""
    statement = _HELD_ROWS.format(
        table=table_name(table),
        column=sql.Identifier(column.name),
        key=element(column, sql.SQL("key")),
        array_type=array_type(column),
    )
    return [n for (n,) in await (await connection.execute(statement, {"keys": keys})).fetchall()]


@lru_cache
def _statement(workflow: Workflow, table: TransitionTable) -> Prepared:
    columns, names = workflow.value_columns, item_names(workflow)
    # By number: a name with something before it may be longer than PostgreSQL keeps.
    aliases = {column.name: f"value {n}" for n, column in enumerate(columns)}
    taken = {name: sql.Identifier(alias) for name, alias in aliases.items()}
    arrays = [
        sql.SQL("{}::{}[]").format(sql.Placeholder(f"value_{n}"), array_type(column))
        for n, column in enumerate(columns)
    ]
    assigned = [sql.Identifier(c.name) for c in columns if c.name != workflow.target_key]
    touched = assigned or [sql.Identifier(workflow.target_key)]
    statement = compose(
        workflow,
        Write(
            name=f"finish {workflow.resource}",
            before=_GIVEN.format(**names, arrays=after_comma(arrays), names=after_comma(taken.values())),
            chosen=_HELD.format(**names),
            rules=table.of(COMPLETE, FIND_NOTHING, RETRY, FAIL, RELEASE, POSTPONE),
            trigger=sql.SQL("g.trigger"),
            expected=sql.SQL("g.version"),
            error=sql.SQL("g.error"),
            failure=sql.SQL("g.failure"),
            delay_s=sql.SQL("g.delay_s"),
            worker=sql.SQL("s.{worker}").format(**names),
            carried={name: sql.SQL("g.{}").format(sql.Identifier(name)) for name in ("ordinal", *aliases.values())},
            after=_UPSERT.format(
                target=table_name(workflow.target),
                columns=commas(sql.Identifier(c.name) for c in columns),
                taken=commas(element(c, sql.SQL("c.{}").format(taken[c.name])) for c in columns),
                taken_key=taken[workflow.target_key],
                target_key=sql.Identifier(workflow.target_key),
                assignments=commas(sql.SQL("{0} = excluded.{0}").format(name) for name in touched),
            )
            + _GROUPED.format(**names),
            answer=_ANSWER,
        ),
    )
    return Prepared.of(statement)
