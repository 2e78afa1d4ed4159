"""Turns a filter into a condition on a workflow's source table.

Logic is two-valued, as AIP-160 wants and SQL does not: `a != 5` and `NOT a = 5` are true where `a` is missing, so that
a filter and its negation split the items between them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from operator import eq, ge, gt, le, lt
from typing import Any

from psycopg import sql
from sqlalchemy import ColumnElement, and_, or_, true
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import Dialect

from curation_service.fields import INDEXED, Field, ItemTable
from curation_service.filter_syntax import And, Comparison, Not, Or, Tree, mistake, parse_filter

LIKE_ESCAPE = "/"
"""A backslash would mean itself or not, depending on a setting of the server."""
OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {"=": eq, ":": eq, "<": lt, "<=": le, ">": gt, ">=": ge}
ORDERED = frozenset({"<", "<=", ">", ">="})


def compile_filter(text: str, items: ItemTable, *, by_index: bool = True) -> ColumnElement[bool]:
    """The condition that a filter puts on the items; true for an empty filter.

    Args:
        text: the filter.
        items: of which workflow.
        by_index: whether to add what lets an index find the items of a queue status; not where the condition is asked
            of items as if they had another queue status than they have.

    Raises:
        InvalidRequest: a mistake in the filter, an unknown field, or a value that its column cannot have.
    """
    if not text.strip():
        return true()
    return _Compiler(items, by_index=by_index).condition(parse_filter(text))


def to_driver_sql(condition: ColumnElement[bool]) -> tuple[sql.Composed, dict[str, Any]]:
    """The condition as the driver takes it: columns as `s.<name>`, parameters named `filter_1`, `filter_2`, ...."""
    dialect: Dialect = PGDialect_psycopg()  # type: ignore[no-untyped-call]
    compiled = condition.compile(dialect=dialect)
    return sql.Composed([sql.SQL(str(compiled))]), dict(compiled.params)


class _Compiler:
    """Gives each value of one filter a parameter of its own name."""

    def __init__(self, items: ItemTable, *, by_index: bool) -> None:
        self._items, self._fields, self._by_index = items, items.fields, by_index
        self._ordinals = count(1)

    def condition(self, tree: Tree) -> ColumnElement[bool]:
        match tree:
            case And(terms):
                return and_(*map(self.condition, terms))
            case Or(terms):
                return or_(*map(self.condition, terms))
            case Not(term):
                # `IS NOT TRUE`, where SQL's own NOT would leave out what is neither true nor false.
                return self.condition(term).is_not(true())
            case Comparison():
                return self._comparison(tree)

    def _comparison(self, tree: Comparison) -> ColumnElement[bool]:
        field = self._fields.get(tree.name)
        if field is None:
            raise mistake(tree.position, f"no field {tree.name!r}; there are {', '.join(sorted(self._fields))}")
        if tree.value is None:
            return field.column.is_not(None)
        if not field.kind.comparable:
            raise mistake(tree.position, f"{tree.name} can only be asked for with {tree.name}:*")
        if tree.comparator in ORDERED and not field.kind.ordered:
            raise mistake(tree.position, f"{tree.name} has no order: use = or !=")
        try:
            value = field.kind.parse(tree.value)
        except ValueError as error:
            raise mistake(tree.position, f"{tree.name}: {error}") from None
        return self._compared(field, tree.comparator, value)

    def _compared(self, field: Field, comparator: str, value: Any) -> ColumnElement[bool]:
        column = field.column
        if comparator == "!=":
            return column.is_not(None) if value is None else column.is_distinct_from(self._bind(field, value))
        if value is None:
            return column.is_(None)
        if self._by_index and field.name == "queue_status" and value in INDEXED:
            return self._items.has_queue_status(value)
        if comparator == ":" and field.kind.textual:
            return column.ilike(self._bind(field, f"%{_escaped(value)}%"), escape=LIKE_ESCAPE)
        condition: ColumnElement[bool] = OPERATORS[comparator](column, self._bind(field, value))
        return condition

    def _bind(self, field: Field, value: Any) -> ColumnElement[Any]:
        return field.bind(f"filter_{next(self._ordinals)}", value)


def _escaped(text: str) -> str:
    for sign in (LIKE_ESCAPE, "%", "_"):
        text = text.replace(sign, LIKE_ESCAPE + sign)
    return text
