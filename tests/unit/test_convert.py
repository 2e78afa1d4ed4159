"""What the database says becomes a message without losing a digit."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from curation.v1 import curation_pb2 as pb
from curation_service.convert import item_reader, outcome_message, to_struct
from shared.errors import Outcome
from tests.support.parcels import PARCELS


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


def test_an_item_has_its_words_and_the_rest_as_data() -> None:
    row: dict[str, Any] = {column.name: None for column in PARCELS.source.columns}
    row |= {"id": uuid.UUID(int=1), "status": "Scan", "version": 3, "scan_attempts": 0, "name": "a", "size": 5}
    item = item_reader(PARCELS)(row)
    assert (item.id, item.status, item.queue_status) == (str(uuid.UUID(int=1)), "Scan", pb.QUEUE_STATUS_NONE)
    assert (item.result, item.batch_id, item.error) == (pb.ENRICHMENT_RESULT_UNSPECIFIED, "", "")
    assert not item.HasField("next_attempt_time")
    assert set(item.data.fields) == {column.name for column in PARCELS.data_columns}
    assert item.data["size"] == 5

    later = datetime(2026, 4, 21, 9, 30, 0, 500, UTC)
    row |= {"scan_status": "completed", "scan_result": "nothing_found", "scan_batch": 7, "scan_run_at": later}
    item = item_reader(PARCELS)(row)
    assert (item.queue_status, item.result) == (pb.QUEUE_STATUS_COMPLETED, pb.ENRICHMENT_RESULT_NOTHING_FOUND)
    assert (item.batch_id, item.next_attempt_time.ToDatetime(UTC)) == ("7", later)


def test_an_item_that_does_not_exist_is_in_no_queue_status() -> None:
    assert outcome_message(Outcome("7", "not_found", None, None, None)) == pb.Outcome(
        item_id="7", reason=pb.OUTCOME_REASON_NOT_FOUND
    )
    assert outcome_message(Outcome("7", "unchanged", "New", None, 1)) == pb.Outcome(
        item_id="7",
        reason=pb.OUTCOME_REASON_UNCHANGED,
        status="New",
        queue_status=pb.QUEUE_STATUS_NONE,
        version=1,
    )
