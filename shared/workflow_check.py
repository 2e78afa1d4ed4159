"""What a workflow's declaration must be for it to work, as far as can be said without a database."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from math import inf
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from sqlalchemy import CHAR, NCHAR, Column, Integer, PrimaryKeyConstraint, String, Table, UniqueConstraint, Uuid

from shared.errors import WorkflowError

if TYPE_CHECKING:
    from shared.workflow import Limits, Rate, Workflow

NAME_BYTES_MAX = 63
"""PostgreSQL cuts longer names."""


def check_workflow(workflow: Workflow) -> None:
    """Refuses a declaration that could not work, with the reason; so a mistake shows at load, not at the first item.

    Raises:
        WorkflowError: it says what is wrong.
    """
    curation, name = workflow.curation, workflow.resource
    if ":" not in str(workflow.enricher):
        raise WorkflowError(name, "the enricher is named as `package.module:function`, a text")
    if problem := _type_problem(workflow):
        raise WorkflowError(name, problem)
    if not name.replace("_", "").isalnum() or name != name.lower():
        raise WorkflowError(name, "a resource is lower-case letters, digits and underscores")
    if problem := _tables_problem(workflow, workflow.source, workflow.target):
        raise WorkflowError(name, problem)
    if single := [listed for listed in (*curation.transitions.values(), curation.triggers) if isinstance(listed, str)]:
        raise WorkflowError(name, f"{single[0]!r} stands where several statuses may: write ({single[0]!r},)")
    known = set(curation.transitions)
    named = {curation.initial, *curation.triggers, *(s for to in curation.transitions.values() for s in to)}
    if missing := sorted(named - known):
        raise WorkflowError(name, f"statuses without an entry in transitions: {', '.join(missing)}")
    if not curation.triggers:
        raise WorkflowError(name, "no trigger status: nothing would ever be queued")
    if absent := sorted(workflow.machinery_columns - {c.name for c in workflow.source.columns}):
        raise WorkflowError(name, f"the source table lacks {', '.join(absent)}: add *item_columns(...)")
    if workflow.target_key not in {c.name for c in workflow.value_columns}:
        raise WorkflowError(name, f"target_key {workflow.target_key!r} is no column that an enricher fills")
    if not _is_unique(workflow.target, workflow.target_key):
        raise WorkflowError(name, f"target_key {workflow.target_key!r} is not unique in {workflow.target.name}")
    if problem := _limits_problem(workflow.limits):
        raise WorkflowError(name, problem)


def _type_problem(declared: Any, path: str = "") -> str | None:
    """A field that does not hold what its annotation says, or None; for authors who run no type checker."""
    hints = get_type_hints(type(declared))
    for field in fields(declared):
        name, value = path + field.name, getattr(declared, field.name)
        if not _fits(value, hints[field.name]):
            return f"{name} is {reprlib.repr(value)}, which is no {field.type}"
        if is_dataclass(value) and (problem := _type_problem(value, f"{name}.")):
            return problem
    return None


def _fits(value: object, hint: Any) -> bool:
    """Whether a value is of an annotated type; for a tuple or a set any collection will do, for a float an int."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind is UnionType:
        return any(_fits(value, each) for each in inner)
    if kind is Mapping:
        return isinstance(value, Mapping) and all(all(map(_fits, pair, inner)) for pair in value.items())
    if inner:
        return isinstance(value, Collection) and all(_fits(each, inner[0]) for each in value)
    return isinstance(value, int | float if kind is float else kind)


def _tables_problem(workflow: Workflow, source: Table, target: Table) -> str | None:
    """What is wrong with the tables by themselves, or None."""
    if source.fullname == target.fullname:
        return "the source cannot be its own target: the result is saved in the statement that changes the status"
    if len(source.primary_key.columns) != 1:
        return "the source table needs a primary key of one column"
    # Callers name an item by its key as text, so a key must have only one spelling.
    (key,) = source.primary_key.columns
    if not isinstance(key.type, Uuid | Integer | String):
        return f"the primary key {key.name} is declared as {key.type!r}: a UUID, a whole number or a text is needed"
    if isinstance(key.type, CHAR | NCHAR):
        return f"the primary key {key.name} is declared as {key.type!r}, with or without spaces behind: make it a text"
    names = {name for t in (source, target) for name in (t.name, *t.columns.keys())}
    if long := sorted(name for name in names if len(name.encode()) > NAME_BYTES_MAX):
        return f"names of more than {NAME_BYTES_MAX} bytes, of which PostgreSQL drops the rest: {', '.join(long)}"
    written = {source.fullname, target.fullname, key.name, *workflow.machinery_columns}
    if percents := sorted(name for name in written if "%" in name):
        return f"the driver takes a percent sign for a parameter: {', '.join(percents)}"
    return None


def _is_unique(table: Table, name: str) -> bool:
    """Whether a constraint or an index makes this column unique, by itself and for all rows: an upsert asks for it."""
    constraints = (
        c for c in table.constraints if isinstance(c, PrimaryKeyConstraint | UniqueConstraint) and not c.deferrable
    )
    indexes = (
        i
        for i in table.indexes
        if i.unique
        and i.dialect_options["postgresql"]["where"] is None
        and all(isinstance(e, Column) for e in i.expressions)
    )
    return any([column.name for column in each.columns] == [name] for each in (*constraints, *indexes))


def _limits_problem(limits: Limits) -> str | None:
    """What is wrong with limits, or None."""
    for word in ("rate", "key_rate"):
        rate: Rate | None = getattr(limits, word)
        if rate is not None and not (0 < rate.calls < inf and 0 < rate.per_s < inf):
            return f"{word} is so many calls, more than 0, in so many seconds, more than 0"
    for word in ("attempts_max", "concurrency", "concurrency_total", "key_concurrency", "breaker_failures"):
        number: int | None = getattr(limits, word)
        if number is not None and number < 1:
            return f"{word} is at least 1"
    if not 0 < limits.timeout_s < inf:
        return "timeout_s is more than 0, and finite"
    for word in ("backoff_s", "backoff_max_s"):
        if not 0 <= getattr(limits, word) < inf:
            return f"{word} is at least 0, and finite"
    return None
