"""Old batches are found, and dropped, by the primary keys: what is young, or stays, is not read."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from psycopg.errors import Diagnostic

from shared.db.old_batches import PORTION, Dropped, drop_batches
from tests.plans.test_plans import nodes

pytestmark = pytest.mark.untraced

ROWS = 200_000
OLD = 1_500
FILL = f"""
INSERT INTO status_batch (resource, status, request_id, created_at, requested, changed)
SELECT 'parcels', 'New', gen_random_uuid(), now() - CASE WHEN n <= {OLD} THEN 400 ELSE 1 END * interval '1 day', 1, 0
FROM generate_series(1, {ROWS}) AS n;
INSERT INTO batch_outcome (batch, ordinal, item, reason)
SELECT id, 1, 'item', 'not_found' FROM status_batch
"""  # our own numbers


def drop_explained(connection: psycopg.Connection[Any], after: int) -> tuple[Dropped, list[dict[str, Any]]]:
    """What was done, and the nodes of its plan that read or wrote a table."""
    found: list[dict[str, Any]] = []

    def on_notice(notice: Diagnostic) -> None:
        plan = (notice.message_primary or "").partition("plan:")[2]
        if "drop_batches" in plan:
            found.extend(nodes(json.loads(plan)["Plan"]))

    connection.add_notice_handler(on_notice)
    with connection.transaction():
        dropped = drop_batches(connection, retention_days=365, after=after)
        connection.execute("SELECT")  # drops the portal of the statement before, which then tells its plan
    connection.remove_notice_handler(on_notice)
    return dropped, [node for node in found if {"Relation Name", "Index Name"} & node.keys()]


@pytest.mark.parametrize("statistics", [False, True])
def test_old_batches_are_dropped_by_their_keys_and_the_young_are_left_unread(
    database_url: str, statistics: bool
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE status_batch SET (autovacuum_enabled = false)")
        connection.execute("ALTER TABLE batch_outcome SET (autovacuum_enabled = false)")
        connection.execute(FILL)
        if statistics:
            connection.execute("ANALYZE status_batch, batch_outcome")
        connection.execute(
            "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_format = json;"
            "SET auto_explain.log_analyze = on; SET client_min_messages = log"
        )
        after: int | None = 0
        for count in (PORTION // 2, PORTION // 2, PORTION // 2):
            assert after is not None
            dropped, read = drop_explained(connection, after)
            assert dropped.count == count
            assert {"status_batch_pkey", "batch_outcome_pkey"} <= {node.get("Index Name") for node in read}
            assert {"event_log"} == {node["Relation Name"] for node in read if node["Node Type"] == "Seq Scan"}
            for node in read:
                assert node["Actual Rows"] + node.get("Rows Removed by Filter", 0) <= PORTION, node
            after = dropped.through
        dropped, read = drop_explained(connection, after or 0)
        assert dropped == Dropped(0, None)
        assert sum(node["Actual Rows"] for node in read) <= PORTION
