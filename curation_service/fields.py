"""The words by which a filter or an order names a part of an item.

They are the words of the `Item` message, whatever the table calls its columns, and every data column by its own name.
Where a data column has the name of an item's word, the item's word wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Enum,
    Float,
    FromClause,
    Text,
    and_,
    any_,
    bindparam,
    cast,
    literal_column,
    or_,
)
from sqlalchemy.types import TypeEngine

from curation_service.kinds import Kind, kind_of, words
from shared.db.in_hand import claimed_keys
from shared.machine import FAILED, NONE, PROCESSING, QUEUE_STATUSES, QUEUED, RESULTS
from shared.workflow import Workflow

SOURCE_ALIAS = "s"
"""What every statement of the service, and the writer, calls the source table."""

QUEUE_STATUS = words(
    "a queue status",
    prefix="QUEUE_STATUS_",
    known={status.upper(): None if status == NONE else status for status in QUEUE_STATUSES},
)
INDEXED = frozenset({QUEUED, PROCESSING, FAILED})
"""Queue statuses whose items an index finds: few of many items have them."""
RESULT = words("a result", prefix="ENRICHMENT_RESULT_", known={result.upper(): result for result in RESULTS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One part of an item that can be filtered or ordered by."""

    name: str
    """Its word in a request."""
    column: ColumnElement[Any]
    """Its column, of the table under the alias `s`."""
    type: TypeEngine[Any]
    """The type its values are sent as."""
    kind: Kind
    """How its values read."""
    nullable: bool
    """Whether it may be missing."""

    def bind(self, parameter: str, value: Any) -> ColumnElement[Any]:
        """A value to compare the column with."""
        bound = bindparam(parameter, value, type_=self.type)
        # The driver sends each float in double precision, and no `real` equals the double it was written as.
        return cast(bound, self.type) if isinstance(self.type, Float) else bound


@dataclass(frozen=True, slots=True)
class ItemTable:
    """A workflow's source table as statements see it, and its fields."""

    workflow: Workflow
    source: FromClause
    """The table under the alias `s`."""
    fields: Mapping[str, Field]
    """Every field of an item by its word."""

    def has_queue_status(self, value: str) -> ColumnElement[bool]:
        """That an item has this one of `INDEXED`; with what is true of such items alone, for an index to find them."""
        queue, columns = self.workflow.queue, self.source.c
        turn, run_at, failure = columns[queue.turn], columns[queue.run_at], columns[queue.failure]
        if value == QUEUED:
            found = or_(turn.is_not(None), run_at.is_not(None))
        elif value == PROCESSING:
            found = columns[self.workflow.key.name] == any_(claimed_keys(self.workflow))
        else:
            found = and_(failure.is_not(None), run_at.is_(None))
        return and_(columns[queue.status] == literal_column(f"'{value}'"), found)


@cache
def item_table(workflow: Workflow) -> ItemTable:
    """The workflow's source table for statements: one and the same, or a statement would join it with itself."""
    source, queue = workflow.source.alias(SOURCE_ALIAS), workflow.queue
    item_words = {
        "id": workflow.key.name,
        "status": workflow.curation.column,
        "queue_status": queue.status,
        "result": queue.result,
        "error": queue.error,
        "failure_group_id": queue.failure,
        "attempts": queue.attempts,
        "version": workflow.curation.version_column,
        "batch_id": queue.batch,
        "next_attempt_time": queue.run_at,
    }
    kinds = {"queue_status": QUEUE_STATUS, "result": RESULT}
    by_word = {column.name: column.name for column in workflow.data_columns} | item_words
    fields = {
        word: _field(word, source.c[name], workflow.source.c[name], kinds.get(word)) for word, name in by_word.items()
    }
    return ItemTable(workflow, source, fields)


def _field(word: str, column: ColumnElement[Any], declared: Column[Any], kind: Kind | None) -> Field:
    type_: TypeEngine[Any] = declared.type
    if isinstance(type_, Enum):
        # As text, so that a value the enum does not have matches nothing instead of failing in the driver.
        column, type_ = cast(column, Text), Text()
    return Field(name=word, column=column, type=type_, kind=kind or kind_of(type_), nullable=bool(declared.nullable))
