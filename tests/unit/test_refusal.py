"""Which errors are a row's own fault; the others are the database's, and are retried or end the worker."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from enrichment_worker.refusal import is_refusal, refusal, value_problem
from tests.support.worker import GADGETS


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (psycopg.errors.StringDataRightTruncation(), True),
        (psycopg.errors.NotNullViolation(), True),
        (psycopg.errors.CheckViolation(), True),
        (psycopg.errors.DatatypeMismatch(), True),
        (psycopg.errors.WithCheckOptionViolation(), True),
        (psycopg.errors.RaiseException(), True),
        (psycopg.errors.ProgramLimitExceeded(), True),
        (psycopg.errors.ObjectNotInPrerequisiteState(), True),
        (psycopg.ProgrammingError("cannot adapt type 'object'"), True),
        (psycopg.DataError("text fields cannot contain NUL"), True),
        (TypeError("not JSON serializable"), True),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogate"), True),
        (psycopg.errors.UndefinedTable(), False),
        (psycopg.errors.GeneratedAlways(), False),
        (psycopg.errors.InsufficientPrivilege(), False),
        (psycopg.errors.DeadlockDetected(), False),
        (psycopg.errors.AdminShutdown(), False),
        (psycopg.errors.LockNotAvailable(), False),
        (psycopg.errors.ReadOnlySqlTransaction(), False),
        (psycopg.OperationalError("the connection is lost"), False),
        (psycopg.InterfaceError("the connection is closed"), False),
        (KeyError("our own mistake"), False),
    ],
)
def test_a_row_is_blamed_only_for_what_its_values_can_cause(error: Exception, refused: bool) -> None:
    assert is_refusal(error) is refused


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"code": "a", "label": "b"}, None),
        (
            {"code": "a", "colour": 1, "bogus": 2, 7: 3},
            "the enricher returned columns that gadget_details does not have: 7, bogus, colour",
        ),
        ({"label": "b"}, "the enricher returned no code, which names the row of gadget_details"),
        ({}, "the enricher returned no code, which names the row of gadget_details"),
    ],
)
def test_values_are_checked_against_the_columns_of_the_target(values: dict[Any, object], problem: str | None) -> None:
    assert value_problem(GADGETS, values) == problem


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ({"code": "a", "label": "b" * 21, "size": 1}, " (see label)"),
        ({"code": "a", "label": "b" * 20, "size": 1}, ""),
        ({"code": 1, "label": "half \ud800", "size": "large"}, " (see code, label, size)"),
        ({"code": "a", "label": None}, ""),
    ],
)
def test_what_does_not_look_like_its_column_is_named_where_postgresql_names_none(
    values: dict[str, object], hint: str
) -> None:
    told = refusal(psycopg.DataError("too long"), GADGETS, values)
    assert told == f"gadget_details refused the values: too long{hint}"
