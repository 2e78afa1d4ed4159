"""A column's value becomes JSON without losing a digit."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from google.protobuf.json_format import MessageToDict

from curation_service.json_values import to_struct


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        ("é", "é"),
        (2**53, float(2**53)),
        (2**53 + 1, "9007199254740993"),
        (-(2**63), "-9223372036854775808"),
        (0.1, 0.1),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (Decimal("10.50"), "10.50"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime(2026, 4, 21, 9, 30, tzinfo=UTC), "2026-04-21T09:30:00+00:00"),
        (date(2026, 4, 21), "2026-04-21"),
        (timedelta(hours=1), "1:00:00"),
        (b"\x00\xff", "AP8="),
        ({"a": [1, {"b": None, "c": 2**60}]}, {"a": [1.0, {"b": None, "c": "1152921504606846976"}]}),
        (["x", Decimal(1)], ["x", "1"]),
    ],
)
def test_a_value_keeps_its_meaning(value: object, expected: object) -> None:
    assert MessageToDict(to_struct({"v": value})) == {"v": expected}
