"""What the tables of a database must be like: there, with the columns that are declared, and as statements take them.

A table that is older than its workflow was made with another tool. Where it is not as the declaration says, that would
show late: by a page that ends too early, a result that wins over a newer one, an error at every call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from sqlalchemy import Column, Table

from shared.db.statement import table_name, type_name
from shared.errors import DatabaseUnfit
from shared.workflow import Workflow

SHOWN_MAX = 3
_MISSING = """/* missing */
SELECT t.name, t.column_name FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS t (name, column_name, n)
WHERE NOT EXISTS (SELECT FROM pg_attribute a
                  WHERE a.attrelid = to_regclass(t.name) AND a.attname = t.column_name AND NOT a.attisdropped)
ORDER BY t.n"""
# Of tables alone: a view says nothing of NULLs and of what is unique. Types are compared by their category, for a
# number is as good as another one, and so is a text; a domain has that of what it is made of.
_UNFIT = """/* unfit */
SELECT name, column_name, problem
FROM (
    SELECT t.*, CASE
        WHEN declared.typcategory <> there.typcategory
        THEN format('is of type %%s, and is declared as %%s', format_type(a.atttypid, a.atttypmod), t.type)
        WHEN declared.oid <> 'bpchar'::regtype AND 'bpchar'::regtype IN (there.oid, there.typbasetype)
        THEN format('reads with or without spaces behind: ALTER its type to %%s', t.type)
        WHEN t.filled AND NOT a.attnotnull AND NOT there.typnotnull
        THEN 'may be NULL, and is declared not to be: SET NOT NULL'
        WHEN t.is_key AND NOT EXISTS (
            SELECT FROM pg_index i
            WHERE i.indrelid = a.attrelid AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum
              AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
        ) THEN 'is the key, and is not unique: create a unique index of it alone' END AS problem
    FROM unnest(%s::text[], %s::text[], %s::text[], %s::bool[], %s::bool[])
         WITH ORDINALITY AS t (name, column_name, type, filled, is_key, n)
    JOIN pg_class c ON c.oid = to_regclass(t.name) AND c.relkind IN ('r', 'p')
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = t.column_name
    JOIN pg_type there ON there.oid = a.atttypid
    LEFT JOIN pg_type declared ON declared.oid = to_regtype(t.type)
) t
WHERE problem IS NOT NULL ORDER BY n"""
# Only the database knows that "shop" and "public"."shop" are one.
_SHARED = """/* shared */
WITH tables AS (
    SELECT resource, source, n, to_regclass(source) AS source_is, to_regclass(target) AS target_is
    FROM unnest(%s::text[], %s::text[], %s::text[]) WITH ORDINALITY AS t (resource, source, target, n)
)
SELECT resource, source FROM tables t
WHERE source_is = target_is OR EXISTS (SELECT FROM tables o WHERE o.source_is = t.source_is AND o.n < t.n)
ORDER BY n LIMIT 1"""


def check_tables(connection: psycopg.Connection[Any], tables: Iterable[Table]) -> None:
    """Raises `DatabaseUnfit` when the database lacks one of these tables, or a column of one."""
    declared = [(table_name(t).as_string(connection), column.name) for t in tables for column in t.columns]
    names, columns = ([*part] for part in zip(*declared, strict=True))
    missing = connection.execute(_MISSING, (names, columns)).fetchall()
    if missing:
        shown = _shown([f"{table}.{column}" for table, column in missing])
        raise DatabaseUnfit(f"the database lacks {shown}: run `python -m shared.db.migrate`")


def check_items(connection: psycopg.Connection[Any], workflows: Iterable[Workflow]) -> None:
    """Raises `DatabaseUnfit` when tables, which are there, are not what their workflow declares and relies on."""
    workflows = list(workflows)
    _check_shared(connection, workflows)
    declared = [row for workflow in workflows for row in _relied_on(connection, workflow)]
    parameters = [[*part] for part in zip(*declared, strict=True)] or [[]] * 5
    unfit = connection.execute(_UNFIT, parameters).fetchall()
    if unfit:
        raise DatabaseUnfit(_shown([f"{table}.{column} {problem}" for table, column, problem in unfit], "; "))


def _check_shared(connection: psycopg.Connection[Any], workflows: Sequence[Workflow]) -> None:
    tables = [(w.resource, *(table_name(t).as_string(connection) for t in (w.source, w.target))) for w in workflows]
    shared = connection.execute(_SHARED, [[*part] for part in zip(*tables, strict=True)] or [[]] * 3).fetchone()
    if shared is not None:
        resource, source = shared
        raise DatabaseUnfit(f"the source of {resource!r}, {source}, is that of another workflow, or its own target")


def _relied_on(
    connection: psycopg.Connection[Any], workflow: Workflow
) -> Iterable[tuple[str, str, str | None, bool, bool]]:
    """Table, column, type where statements compare it with others, whether it is never NULL, whether it is the key."""
    source, target = (table_name(table).as_string(connection) for table in (workflow.source, workflow.target))

    def type_of(column: Column[Any]) -> str:
        return type_name(column).as_string(connection)

    for column in workflow.source.columns:
        is_key = column is workflow.key
        compared = is_key or column.name in workflow.machinery_columns
        yield source, column.name, type_of(column) if compared else None, not column.nullable, is_key
    key = workflow.target.columns[workflow.target_key]
    yield target, key.name, type_of(key), False, True


def _shown(problems: list[str], separator: str = ", ") -> str:
    return separator.join(problems[:SHOWN_MAX]) + (f"{separator}..." if len(problems) > SHOWN_MAX else "")
