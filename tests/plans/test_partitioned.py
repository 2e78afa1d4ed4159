"""A source table that is hash-partitioned by its key: the same statements, by the indexes of its partitions."""

from __future__ import annotations

import pytest

from shared.db.engine import Connection
from tests.plans.test_plans import CLAIMS, FILL, ROWS, STATEMENTS, explained, finish_some
from tests.support.partitioned import PARTITIONS, partition_by_key
from tests.support.service import parcel_database

pytestmark = pytest.mark.untraced


async def finish_one(connection: Connection) -> object:
    """An item, with what was run of its plan."""
    await connection.execute("SET LOCAL auto_explain.log_analyze = on")
    return await finish_some(1)(connection)


@pytest.mark.timeout(240)
async def test_no_hot_statement_reads_a_whole_partition_and_an_item_is_found_in_its_own(database_url: str) -> None:
    async with parcel_database(database_url) as database:
        await partition_by_key(database, "parcels")
        async with database.transaction() as connection:
            await connection.execute(FILL, (ROWS,))
            await connection.execute(CLAIMS)
            await connection.execute("ANALYZE parcels")
        for name, (run, _) in STATEMENTS.items():
            plan = await explained(database, run)
            read = [node for node in plan if str(node.get("Relation Name")).startswith("parcels")]
            assert len({node["Relation Name"] for node in read} - {"parcels"}) == PARTITIONS, name
            assert "Seq Scan" not in {node["Node Type"] for node in read}, name
        met = [
            node for node in await explained(database, finish_one) if node.get("Index Name") and node["Actual Loops"]
        ]
        assert [node["Relation Name"] for node in met] == [met[0]["Relation Name"]] * 2, "found, and updated"
