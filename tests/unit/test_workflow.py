"""A declaration that could not work is refused when it is made, and told why."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan
from typing import Any

import pytest
from sqlalchemy import (
    CHAR,
    Column,
    DateTime,
    Float,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)

from shared.errors import WorkflowError
from shared.table import transition_table
from shared.workflow import Curation, Limits, QueueColumns, Rate
from tests.support.parcels import PARCELS


def curation(**changes: Any) -> Curation:
    return replace(PARCELS.curation, **changes)


def wrong(**options: Any) -> Any:
    """What no type checker would let through."""
    return options


def target(*arguments: Any, unique: bool | None = None) -> Table:
    """One whose key is another column than the one that upserts go by."""
    columns = Column("id", Integer, primary_key=True, server_default=text("0")), Column("code", Text, unique=unique)
    return Table("found", MetaData(), *columns, Column("other", Text), *arguments)


def keyed(type_: Any) -> Table:
    return Table("keyed", MetaData(), Column("id", type_, primary_key=True))


def by_expression() -> Table:
    table = target()
    Index(None, func.lower(table.c.code), unique=True)
    return table


def by_code(table: Table) -> dict[str, Any]:
    return {"target": table, "target_key": "code"}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"resource": "Parcels"}, "a resource is lower-case letters, digits and underscores"),
        ({"resource": "par-cels"}, "a resource is lower-case letters, digits and underscores"),
        ({"source": Table("keyless", MetaData(), Column("id", Integer))}, "needs a primary key of one column"),
        ({"source": keyed(Float)}, r"the primary key id is declared as Float\(\): a UUID, a whole number or a text"),
        ({"source": keyed(CHAR(6))}, r"the primary key id is declared as CHAR\(length=6\), .*: make it a text"),
        ({"source": keyed(DateTime(timezone=True))}, "the primary key id is declared as DateTime"),
        ({"target": Table("100%", MetaData(), Column("id", Text))}, "a percent sign for a parameter: 100%$"),
        ({"target": PARCELS.source, "target_key": "id"}, "the source cannot be its own target"),
        ({"target": Table("found", MetaData(), Column("ä" * 32, Text))}, f"more than 63 bytes, .*: {'ä' * 32}$"),
        (
            {"source": Table("bare", MetaData(), Column("id", Integer, primary_key=True))},
            "the source table lacks scan_attempts, .*: add ",
        ),
        ({"queue": QueueColumns.named("other")}, "the source table lacks other_attempts, "),
        ({"curation": curation(initial="Old")}, "statuses without an entry in transitions: Old"),
        ({"curation": curation(triggers=frozenset({"Scam"}))}, "statuses without an entry in transitions: Scam"),
        ({"curation": curation(triggers=frozenset())}, "no trigger status"),
        ({"target_key": "nothing"}, "target_key 'nothing' is no column that an enricher fills"),
        (by_code(target()), "target_key 'code' is not unique in found"),
        (by_code(target(UniqueConstraint("code", "other"))), "target_key 'code' is not unique in found"),
        (by_code(target(UniqueConstraint("code", deferrable=True))), "target_key 'code' is not unique in found"),
        (by_code(target(Index(None, text("lower(code)"), unique=True))), "target_key 'code' is not unique in found"),
        (by_code(by_expression()), "target_key 'code' is not unique in found"),
        (
            by_code(target(Index(None, "code", unique=True, postgresql_where=text("other IS NULL")))),
            "target_key 'code' is not unique in found",
        ),
        ({"curation": curation(triggers="Wanted")}, r"'Wanted' stands where several statuses may: write \('Wanted',\)"),
        ({"curation": curation(transitions={"New": "Old"})}, r"'Old' stands where .*: write \('Old',\)"),
        ({"enricher": "package.module.function"}, "the enricher is named as `package.module:function`"),
        ({"enricher": curation}, "the enricher is named as `package.module:function`, a text"),
        ({"limits": Limits(**wrong(attempts_max="3"))}, r"limits.attempts_max is '3', which is no int$"),
        (
            {"limits": Limits(**wrong(concurrency_total=nan))},
            r"limits.concurrency_total is nan, which is no int \| None$",
        ),
        ({"limits": Limits(rate=Rate(**wrong(calls="5")))}, "limits.rate.calls is '5', which is no float$"),
        ({"limits": Limits(**wrong(rate=5))}, r"limits.rate is 5, which is no Rate \| None$"),
        ({"queue": "scan"}, "queue is 'scan', which is no QueueColumns$"),
        ({"source": type("Parcel", (), {})}, "source is <class .*, which is no Table$"),
        ({"resource": None}, "resource is None, which is no str$"),
        ({"curation": curation(initial=None)}, "curation.initial is None, which is no str$"),
        (
            {"curation": curation(triggers=["Scan", 3])},
            r"curation.triggers is \['Scan', 3\], which is no frozenset\[str\]",
        ),
        (
            {"curation": curation(transitions={"New": None})},
            "curation.transitions is {'New': None}, which is no Mapping",
        ),
        ({"limits": Limits(rate=Rate(calls=0))}, "rate is so many calls"),
        ({"limits": Limits(key_rate=Rate(calls=1, per_s=inf))}, "key_rate is so many calls"),
        ({"limits": Limits(attempts_max=0)}, "attempts_max is at least 1"),
        ({"limits": Limits(concurrency=0)}, "concurrency is at least 1"),
        ({"limits": Limits(timeout_s=0)}, "timeout_s is more than 0"),
        ({"limits": Limits(timeout_s=nan)}, "timeout_s is more than 0"),
        ({"limits": Limits(timeout_s=inf)}, "timeout_s is more than 0, and finite"),
        ({"limits": Limits(backoff_s=-1)}, "backoff_s is at least 0, and finite"),
        ({"limits": Limits(backoff_max_s=nan)}, "backoff_max_s is at least 0, and finite"),
    ],
)
def test_a_declaration_that_could_not_work_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(WorkflowError, match=problem):
        replace(PARCELS, **changes)


@pytest.mark.parametrize(
    "table",
    [target(unique=True), target(UniqueConstraint("code")), target(Index(None, "code", unique=True))],
    ids=["column", "constraint", "index"],
)
def test_whatever_makes_the_key_of_the_target_unique_will_do(table: Table) -> None:
    assert replace(PARCELS, **by_code(table)).target_key == "code"


def test_a_primary_key_that_counts_by_itself_is_not_for_an_enricher_to_fill() -> None:
    table = Table("t", MetaData(), Column("id", Integer, primary_key=True), Column("code", Text, unique=True))
    assert replace(PARCELS, **by_code(table)).value_names == {"code"}
    assert replace(PARCELS, target=table, target_key="id").value_names == {"id", "code"}


def test_triggers_may_be_a_list() -> None:
    workflow = replace(PARCELS, curation=curation(triggers=sorted(PARCELS.curation.triggers)))
    assert transition_table(workflow).rules == transition_table(PARCELS).rules
