"""What the database says of an item becomes its message."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from curation.v1 import curation_pb2 as pb
from curation_service.messages import item_reader, outcome_message
from shared.errors import Outcome
from tests.support.parcels import PARCELS


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
