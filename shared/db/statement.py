"""Names and types of a workflow's tables as the hot statements spell them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from psycopg import sql
from sqlalchemy import Column, Table
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from shared.workflow import Workflow


def table_name(table: Table) -> sql.Identifier:
    """The table, with its schema where it has one."""
    return sql.Identifier(*filter(None, (table.schema, table.name)))


def type_name(column: Column[object]) -> sql.SQL:
    """The column's type, e.g. `UUID`, without its length: `::varchar(20)` cuts in silence what an insert refuses."""
    dialect = PGDialect_psycopg()  # type: ignore[no-untyped-call]
    name = re.sub(r"\(.*\)", "", column.type.compile(dialect=dialect))
    return sql.SQL(_WITHOUT_LENGTH.get(name, name))


_WITHOUT_LENGTH = {"CHAR": "BPCHAR", "NCHAR": "BPCHAR", "BIT": "BIT VARYING"}
"""Types that have a length of one where none is given."""


def literal(value: str) -> sql.Literal:
    """A text in a statement that takes parameters, where a percent sign is written twice."""
    return sql.Literal(value.replace("%", "%%"))


def commas(parts: Iterable[sql.Composable]) -> sql.Composed:
    """The parts with commas in between."""
    return sql.SQL(", ").join(parts)


def after_comma(parts: Iterable[sql.Composable]) -> sql.Composed:
    """The parts as more of a list that has some: each with a comma in front."""
    return sql.SQL("").join(sql.SQL(", {}").format(part) for part in parts)


def item_names(workflow: Workflow) -> dict[str, sql.Composable]:
    """The names of the source table's item columns, for `format`: `{key}`, `{status}`, `{queue}`, `{error}`, ...."""
    queue = workflow.queue
    columns = {
        "key": workflow.key.name,
        "status": workflow.curation.column,
        "version": workflow.curation.version_column,
        "queue": queue.status,
        "error": queue.error,
        "failure": queue.failure,
        "result": queue.result,
        "attempts": queue.attempts,
        "turn": queue.turn,
        "run_at": queue.run_at,
        "worker": queue.worker,
        "batch": queue.batch,
        "event": queue.event,
    }
    names: dict[str, sql.Composable] = {name: sql.Identifier(column) for name, column in columns.items()}
    return names | {
        "source": table_name(workflow.source),
        "key_type": type_name(workflow.key),
        "resource": sql.Literal(workflow.resource),
    }
