"""Orders items (AIP-132) and says which items come after a given one in that order.

The key always ends an order, so that no two items share a place and a page starts exactly where the one before ended.
A missing value counts as the greatest, as PostgreSQL and its indexes have it: last ascending, first descending.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, and_, false, or_, tuple_

from curation_service.fields import Field, ItemTable
from shared.errors import FieldViolation, InvalidRequest

COLUMNS_MAX = 8
"""Columns in one order, the key not counted."""
LENGTH_MAX = 1_000
"""Characters of an `order_by`; eight names of the longest that PostgreSQL takes, 63, and their directions."""
PART = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)(?:\s+(asc|desc))?\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class OrderColumn:
    """One column of an order."""

    field: Field
    descending: bool


Order: TypeAlias = tuple[OrderColumn, ...]
"""What comes first decides first; the last is the key."""


def parse_order(text: str, items: ItemTable) -> Order:
    """The order that `order_by` asks for, by key when it is empty.

    Raises:
        InvalidRequest: not an order, an unknown field, one named twice, or one that has no order.
    """
    if len(text) > LENGTH_MAX:
        raise _wrong(f"longer than {LENGTH_MAX} characters")
    fields = items.fields
    order = [_column(part, fields) for part in text.split(",")] if text.strip() else []
    names = [column.field.name for column in order]
    if len(names) != len(set(names)):
        raise _wrong("names a field twice")
    if len(names) > COLUMNS_MAX:
        raise _wrong(f"more than {COLUMNS_MAX} fields")
    if "id" not in names:
        order.append(OrderColumn(fields["id"], descending=False))
    return tuple(order)


def order_clauses(order: Order) -> list[ColumnElement[Any]]:
    """The order as SQL; NULLs are left to PostgreSQL's rule, the one its indexes follow."""
    return [c.field.column.desc() if c.descending else c.field.column.asc() for c in order]


def after(order: Order, values: Sequence[Any]) -> ColumnElement[bool]:
    """The condition that an item comes after the one that has these values in the order's columns."""
    bound = [
        column.field.bind(f"after_{n}", value) for n, (column, value) in enumerate(zip(order, values, strict=True))
    ]
    if not any(c.field.nullable for c in order) and len({c.descending for c in order}) == 1:
        # A row comparison is one range of an index; the general form below is a filter on each row.
        left, right = tuple_(*(c.field.column for c in order)), tuple_(*bound)
        condition: ColumnElement[bool] = left < right if order[0].descending else left > right
        return condition
    condition = false()
    for column, value, parameter in reversed(list(zip(order, values, bound, strict=True))):
        condition = or_(_beyond(column, value, parameter), and_(_same(column, value, parameter), condition))
    return condition


def _column(part: str, fields: Mapping[str, Field]) -> OrderColumn:
    found = PART.fullmatch(part)
    if found is None:
        raise _wrong(f"expected a field, then desc or nothing, found {part.strip()[:40]!r}")
    field = fields.get(found[1])
    if field is None:
        raise _wrong(f"no field {found[1]!r}; there are {', '.join(sorted(fields))}")
    if not field.kind.comparable:
        raise _wrong(f"{field.name} has no order")
    return OrderColumn(field, descending=found[2] == "desc")


def _beyond(column: OrderColumn, value: Any, parameter: ColumnElement[Any]) -> ColumnElement[bool]:
    place = column.field.column
    if value is None:
        return place.is_not(None) if column.descending else false()
    if column.descending:
        return place < parameter
    return or_(place > parameter, place.is_(None)) if column.field.nullable else place > parameter


def _same(column: OrderColumn, value: Any, parameter: ColumnElement[Any]) -> ColumnElement[bool]:
    return column.field.column.is_(None) if value is None else column.field.column == parameter


def _wrong(problem: str) -> InvalidRequest:
    return InvalidRequest(FieldViolation("order_by", problem))
