"""A filter becomes one condition, or an error that says where the mistake is."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from curation_service.fields import item_table
from curation_service.filter_syntax import COMPARISONS_MAX, DEPTH_MAX, LENGTH_MAX
from curation_service.filters import compile_filter, to_driver_sql
from shared.errors import InvalidRequest
from tests.support.parcels import PARCELS


def driver_sql(text: str) -> tuple[str, list[Any]]:
    condition, params = to_driver_sql(compile_filter(text, item_table(PARCELS)))
    return condition.as_string(), list(params.values())


def mistake(text: str) -> str:
    with pytest.raises(InvalidRequest) as caught:
        compile_filter(text, item_table(PARCELS))
    (violation,) = caught.value.violations
    assert violation.field == "filter"
    return violation.description


def test_or_binds_tighter_than_and() -> None:
    condition, params = driver_sql("size = 1 AND size = 2 OR size = 3")
    assert condition.count("(s.size") == 1
    assert condition.index("AND (s.size") < condition.index("OR")
    assert params == [1, 2, 3]


@pytest.mark.parametrize("text", ["size=1 AND fragile=true", "size = 1 fragile = true", "(size=1)(fragile=true)"])
def test_terms_side_by_side_must_all_be_true(text: str) -> None:
    assert driver_sql(text) == ("s.size = %(filter_1)s::INTEGER AND s.fragile = %(filter_2)s", [1, True])


@pytest.mark.parametrize("text", ["NOT size = 1", "-size = 1", "- size=1", "NOT (size = 1)"])
def test_not_is_true_wherever_the_term_is_not_true(text: str) -> None:
    assert driver_sql(text) == ("(s.size = %(filter_1)s::INTEGER) IS NOT true", [1])


def test_unequal_includes_what_is_missing() -> None:
    assert driver_sql("size != 1") == ("s.size IS DISTINCT FROM %(filter_1)s::INTEGER", [1])


@pytest.mark.parametrize("word", ["QUEUED", "queued", "QUEUE_STATUS_QUEUED"])
def test_a_queue_status_reads_in_each_spelling(word: str) -> None:
    assert driver_sql(f"queue_status != {word}") == ("s.scan_status IS DISTINCT FROM %(filter_1)s::VARCHAR", ["queued"])


def test_what_waits_and_what_has_failed_is_asked_for_as_its_index_has_it() -> None:
    waits = "(s.scan_turn IS NOT NULL OR s.scan_run_at IS NOT NULL)"
    assert driver_sql("queue_status = QUEUED") == (f"s.scan_status = 'queued' AND {waits}", [])
    failed = "s.scan_failure IS NOT NULL AND s.scan_run_at IS NULL"
    assert driver_sql("queue_status = FAILED") == (f"s.scan_status = 'failed' AND {failed}", [])


def test_no_queue_status_is_a_missing_value() -> None:
    assert driver_sql("queue_status = NONE") == ("s.scan_status IS NULL", [])
    assert driver_sql("queue_status != QUEUE_STATUS_NONE") == ("s.scan_status IS NOT NULL", [])


def test_a_star_asks_whether_a_value_is_there() -> None:
    assert driver_sql("details:*") == ("s.details IS NOT NULL", [])
    assert driver_sql("-note:*") == ("(s.note IS NOT NULL) IS NOT true", [])


def test_contains_takes_wildcards_of_like_as_they_are() -> None:
    assert driver_sql('name:"50%_/"')[1] == ["%50/%/_//%"]


def test_each_words_of_an_item_is_a_field_whatever_its_column_is_called() -> None:
    condition, _ = driver_sql('result=FOUND error:x attempts>=1 version<5 batch_id=7 status="New" next_attempt_time:*')
    for column in ("scan_result", "scan_error", "scan_attempts", "version", "scan_batch", "status", "scan_run_at"):
        assert f"s.{column} " in condition


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("size > -5", -5),
        ("serial = 9223372036854775807", 2**63 - 1),
        ("price <= 10.50", Decimal("10.50")),
        ("weight < 2.5e3", 2500.0),
        ("sent_at >= 2026-04-21T11:30:00+02:00", datetime(2026, 4, 21, 9, 30, tzinfo=UTC)),
        ('sent_at >= "2026-04-21T09:30:00.25Z"', datetime(2026, 4, 21, 9, 30, 0, 250_000, UTC)),
        ("local_time = 2026-04-21T09:30:00Z", datetime(2026, 4, 21, 9, 30)),  # noqa: DTZ001 - a column without a zone
        ("name = 'it\\'s \"so\"'", 'it\'s "so"'),
        ('name = "a \\\\ b"', "a \\ b"),
        ("name = Zürich", "Zürich"),
        ("name = a:b", "a:b"),
        ("colour = blue", "blue"),
    ],
)
def test_a_value_takes_the_type_of_its_column(text: str, value: object) -> None:
    assert driver_sql(text)[1] == [value]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nope = 1", "at character 1: no field 'nope'; there are "),
        ("size = 1 AND", "at character 13: expected a field such as status, found the end"),
        ("size = 1 AND AND size = 2", "at character 14: expected a field such as status, found 'AND size = 2'"),
        ("size", "at character 5: expected a comparison of size such as size = value, found the end"),
        ("size =", "at character 7: expected a value"),
        ("name = a=b", "at character 9: expected AND, OR or the end, found '=b'"),
        ("(size = 1", "at character 10: expected ), found the end"),
        ("size = 1)", "at character 9: expected AND, OR or the end, found ')'"),
        ('name = "a', "at character 8: a quote that does not end"),
        ('name = "a\\n"', "at character 10: a backslash stands before a quote or a backslash only"),
        ("name = *", "at character 8: * stands after : only"),
        ("name = AND", "at character 8: expected a value"),
        ("name = New York", "at character 16: expected a comparison of York"),
        ("size = x", "at character 1: size: expected a whole number from -2147483648 to 2147483647"),
        ("size = 2147483648", "at character 1: size: expected a whole number"),
        ("floor = 40000", "at character 1: floor: expected a whole number from -32768 to 32767"),
        ("size = ٣", "at character 1: size: expected a whole number"),
        ("weight = 1e999", "at character 1: weight: the number is too big"),
        ("price = 1e9999", "at character 1: price: the number has too many digits"),
        ("fragile = yes", "at character 1: fragile: expected true or false"),
        ("fragile > true", "at character 1: fragile has no order"),
        ("id = 7", "at character 1: id: expected a UUID"),
        ("sent_at > 2026-04-21", "at character 1: sent_at: expected a timestamp with its offset"),
        ("sent_at > 2026-02-30T00:00:00Z", "at character 1: sent_at: there is no such date"),
        ("queue_status = waiting", "at character 1: queue_status: expected a queue status, one of NONE, QUEUED"),
        ("queue_status > QUEUED", "at character 1: queue_status has no order"),
        ("details = 1", "at character 1: details can only be asked for with details:*"),
        ('name = "\0"', "at character 1: name: a NUL character cannot be stored"),
        ("details.size = 1", "at character 8: expected a comparison of details"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, expected: str) -> None:
    assert mistake(text).startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x" * (LENGTH_MAX + 1), f"longer than {LENGTH_MAX} characters"),
        (" ".join(["size=1"] * (COMPARISONS_MAX + 1)), f"more than {COMPARISONS_MAX} comparisons"),
        ("(" * 2000 + "size=1", f"more than {DEPTH_MAX} parentheses"),
        ("-" * 2000 + "size=1", f"more than {DEPTH_MAX} parentheses"),
    ],
)
def test_a_filter_is_bounded(text: str, expected: str) -> None:
    assert expected in mistake(text)


def test_the_largest_filter_that_is_allowed_is_read() -> None:
    condition, _ = driver_sql("(" * DEPTH_MAX + " OR ".join(["size=1"] * COMPARISONS_MAX) + ")" * DEPTH_MAX)
    assert condition.count("s.size = ") == COMPARISONS_MAX


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_filter_matches_everything(text: str) -> None:
    assert driver_sql(text) == ("true", [])
