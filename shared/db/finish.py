"""Ends attempts, many in one statement: fence by version, change the status, upsert the target, append the events.

Data is saved if and only if its item turns `completed`: both are the same statement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from psycopg import sql
from sqlalchemy import Column, Table

from shared.db.arrays import BIGINTS, DOUBLES, TEXTS, Array, array_of
from shared.db.engine import Connection
from shared.db.prepared import Prepared
from shared.db.statement import commas, item_names, table_name
from shared.db.values import TEXT, array_type, element, to_array
from shared.db.writer import NOTIFY, Alike, Write, compose
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


_OWN = {"trigger": TEXT, "error": TEXT, "failure": sql.SQL("bigint"), "delay_s": sql.SQL("float8")}
"""What is sent, by name and type, besides keys, versions and values, unless all results are `complete`."""
# In the select list the functions advance side by side; in FROM each of them would first write down all of its rows.
_NUMBERED = sql.SQL("SELECT generate_series(1, cardinality(%(key)s::{key_type}[])) AS ordinal, {columns}")
_GIVEN = sql.SQL("given AS MATERIALIZED (\n    {}\n),\n")
_HELD = sql.SQL("given g JOIN {source} s ON s.{key} = g.key ORDER BY s.{key} FOR NO KEY UPDATE OF s")
_COMPLETED = sql.SQL("SELECT c.ordinal FROM changed c")
_COMPLETED_OF_ANY = sql.SQL("SELECT c.ordinal FROM changed c WHERE c.trigger = 'complete'")
# Several items may share a target row, and one statement may touch a row but once: the last result wins, as it would
# have one by one. IS TRUE keeps IN a search in a hash: a join could be a nested loop, for the planner assumes that few
# rows change.
_UPSERT = sql.SQL(
    """,
upserted AS (
    INSERT INTO {target} ({columns})
    SELECT DISTINCT ON ({key}) {values}
    FROM ({numbered}) v
    WHERE (v.ordinal IN ({completed})) IS TRUE
    ORDER BY {key}, v.ordinal DESC
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
    rows = [r.values for r in results]
    parameters: dict[str, Any] = {
        "resource": workflow.resource,
        "key": array_of(workflow.key, [r.item.key for r in results]),
        "version": BIGINTS.array([r.item.version for r in results]),
        **{name: to_array(column, rows) for name, column in _values(workflow).items()},
    }
    all_complete = all(r.trigger == COMPLETE for r in results)
    if not all_complete:
        parameters |= _own(workflow, results)
    [(saved, _)] = await finish_statement(workflow, table, all_complete=all_complete).run(connection, parameters)
    return Finished(saved=saved, dropped=len(results) - saved)


def _values(workflow: Workflow) -> dict[str, Column[Any]]:
    """The columns that may be saved, by names that a placeholder can have: those of columns may be any."""
    return {f"value_{n}": column for n, column in enumerate(workflow.value_columns)}


def _own(workflow: Workflow, results: Sequence[Result]) -> dict[str, Any]:
    """The parameters that `_OWN` names, and the groups of failures of these results."""
    groups = {f.group(workflow.resource): f for r in results if (f := r.failure) is not None}
    return {
        "trigger": TEXTS.array([r.trigger for r in results]),
        "error": TEXTS.array([r.error for r in results]),
        "failure": BIGINTS.array([r.failure and r.failure.group(workflow.resource) for r in results]),
        "delay_s": DOUBLES.array([r.delay_s for r in results]),
        "groups": BIGINTS.array(list(groups)),
        "upstreams": TEXTS.array([failure.upstream for failure in groups.values()]),
        "kinds": TEXTS.array([failure.kind for failure in groups.values()]),
        "messages": TEXTS.array([failure.message for failure in groups.values()]),
    }


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
def finish_statement(workflow: Workflow, table: TransitionTable, *, all_complete: bool) -> Prepared:
    """For results that are all `complete`, which is the usual case, or for any."""
    names, own = item_names(workflow), {} if all_complete else _OWN
    given = _numbered(workflow, {"key": names["key_type"], "version": sql.SQL("bigint"), **own})
    write = Write(
        name=f"finish {workflow.resource}",
        before=_GIVEN.format(given),
        chosen=_HELD.format(**names),
        rules=table.of(COMPLETE),
        trigger=Alike(sql.SQL("'complete'::text")),
        expected=sql.SQL("g.version"),
        worker=sql.SQL("s.{worker}").format(**names),
        carried={"ordinal": sql.SQL("g.ordinal")},
        after=_upsert(workflow, completed=_COMPLETED),
        answer=_ANSWER,
    )
    if not all_complete:
        write = replace(
            write,
            rules=table.of(COMPLETE, FIND_NOTHING, RETRY, FAIL, RELEASE, POSTPONE),
            trigger=sql.SQL("g.trigger"),
            error=sql.SQL("g.error"),
            failure=sql.SQL("g.failure"),
            delay_s=sql.SQL("g.delay_s"),
            after=_upsert(workflow, completed=_COMPLETED_OF_ANY) + _GROUPED.format(**names),
        )
    return Prepared.of(compose(workflow, write))


def _numbered(workflow: Workflow, types: Mapping[str, sql.Composable]) -> sql.Composed:
    """Arrays by name, with the types of their elements, as columns; an ordinal says which result a row is of."""
    columns = (
        sql.SQL("unnest({}::{}[]) AS {}").format(sql.Placeholder(name), type_, sql.Identifier(name))
        for name, type_ in types.items()
    )
    return _NUMBERED.format(**item_names(workflow), columns=commas(columns))


def _upsert(workflow: Workflow, *, completed: sql.SQL) -> sql.Composed:
    values = _values(workflow)
    taken = {column.name: sql.SQL("v.{}").format(sql.Identifier(name)) for name, column in values.items()}
    target_key = sql.Identifier(workflow.target_key)
    columns = {column.name: sql.Identifier(column.name) for column in values.values()}
    assigned = [name for column, name in columns.items() if column != workflow.target_key]
    return _UPSERT.format(
        target=table_name(workflow.target),
        columns=commas(columns.values()),
        key=taken[workflow.target_key],
        values=commas(element(column, taken[column.name]) for column in values.values()),
        numbered=_numbered(workflow, {name: array_type(column) for name, column in values.items()}),
        completed=completed,
        target_key=target_key,
        assignments=commas(sql.SQL("{0} = excluded.{0}").format(name) for name in assigned or [target_key]),
    )
