"""The snapshot of a batch reads what is queued once, and only where the log has dropped how an open batch began."""

from __future__ import annotations

from typing import Any

import pytest

from curation.v1 import curation_pb2 as pb
from curation_service.selected_rows import read_pages
from curation_service.snapshot import PAGE_SIZE, visible
from curation_service.watch_request import WatchRequest, read_watch
from shared.db.engine import Connection, Database, driver_connection
from shared.db.log import log_identity
from shared.registry import Registry
from tests.plans.test_plans import CLAIMS, FILL, KEY, ROWS, RUN_AT, TURN, UNDER_WAY, explained_on
from tests.support.parcels import PARCELS
from tests.support.service import parcel_database

pytestmark = pytest.mark.untraced

BATCH = "INSERT INTO status_batch (resource, status, position, queued) VALUES ('parcels', 'Scan', 1, 1)"
STATES = {
    "the log has it": ('{"queued": 1}', 0),
    "it is done": ('{"completed": 1}', 1),
    "it is open": ('{"queued": 1}', 1),
}
"""What the log has dropped of a batch, and how far."""


async def snapshot(database: Database, watch: WatchRequest) -> tuple[int, list[dict[str, Any]]]:
    """How many rows the snapshot has, and the nodes of its plans."""
    counts: list[int] = []
    async with database.core(isolation="REPEATABLE READ") as connection:
        lacks_batch = (await visible(connection, watch.batch)).lacks_batch

        async def run(_: Connection) -> object:
            pages = read_pages(connection, watch, size=PAGE_SIZE, lacks_batch=lacks_batch)
            counts.extend([len(rows) async for rows in pages])
            return counts

        plan = await explained_on(await driver_connection(connection), run)
    assert max(counts, default=0) <= PAGE_SIZE
    return sum(counts), plan


@pytest.mark.timeout(240)
async def test_the_queue_is_read_once_for_a_batch_that_is_open_though_the_log_dropped_it_and_for_no_other(
    database_url: str,
) -> None:
    async with parcel_database(database_url) as database:
        async with database.transaction() as connection:
            await connection.execute("ALTER TABLE parcels SET (autovacuum_enabled = false)")
            await connection.execute(FILL, (ROWS,))
            await connection.execute(CLAIMS)
            await connection.execute(BATCH)
            log = (await log_identity(connection)).id
        watch = read_watch(
            pb.WatchStatusRequest(resource="parcels", batch_id="1"), Registry(PARCELS), log=log, items_max=1
        )
        for statistics in (False, True):
            if statistics:
                async with database.transaction() as connection:
                    await connection.execute("ANALYZE parcels")
            for state, (folded, pruned_through) in STATES.items():
                async with database.transaction() as connection:
                    await connection.execute("UPDATE status_batch SET folded = %s", [folded])
                    await connection.execute("UPDATE event_log SET pruned_through = %s", [pruned_through])
                count, plan = await snapshot(database, watch)
                case = state, f"statistics: {statistics}"
                by_index = [node["Index Name"] for node in plan if node.get("Index Name") in (TURN, RUN_AT)]
                if state != "it is open":
                    assert (count, by_index) == (0, []), case
                    continue
                assert count == ROWS // 10 + UNDER_WAY, case
                read = [node for node in plan if node.get("Relation Name") == "parcels"]
                assert "Seq Scan" not in {node["Node Type"] for node in read}, case
                assert sorted(by_index) == [RUN_AT, TURN], case
                assert KEY in {node.get("Index Name") for node in read}, case
                assert sum(node["Actual Loops"] * node["Actual Rows"] for node in read) <= 3 * count, case
