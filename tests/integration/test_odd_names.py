"""Tables that somebody has already: their names need quotes, and are as long as PostgreSQL takes."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, Text, text

from curation.v1 import curation_pb2 as pb
from shared.db.claim import claim
from shared.db.finish import Result, finish
from shared.db.migrate import migrate
from shared.machine import COMPLETE
from shared.registry import Registry
from shared.table import transition_table
from shared.workflow import Curation, QueueColumns, Workflow, item_columns
from tests.support.service import running_service
from tests.support.shops import execute

pytestmark = pytest.mark.postgres_versions

LONG = "share_of_the_customers_who_came_back_within_a_year_in_percent"
tables = MetaData(schema="Our.Shops")
curation = Curation(
    initial="0% won't do",
    transitions={"0% won't do": ("Do 100%",), "Do 100%": ("0% won't do",)},
    triggers=frozenset({"Do 100%"}),
    column="Curation",
    version_column="Lock Version",
)
queue = QueueColumns.named("Deep Scan")
ODD = Workflow(
    resource="shops",
    source=Table(
        'Shop "A".1',
        tables,
        Column("Shop No.", String(8), primary_key=True),
        Column(f"{LONG}_1", Integer),
        Column(f"{LONG}_2", Integer),
        Column("a:b", Text),
        Column("status", Text),
        Column("version", Text, server_default="1.0"),
        Column("Discount %", Integer),
        *item_columns(curation, queue, key="Shop No."),
    ),
    target=Table(
        "Found",
        tables,
        Column("id", Integer, primary_key=True),
        Column("Shop", Text, unique=True),
        Column(f"{LONG}_1", Integer),
        Column(f"{LONG}_2", Integer),
        Column("Discount %", Integer),
    ),
    target_key="Shop",
    curation=curation,
    queue=queue,
    api="Shops 100%",
    enricher="tests.nowhere:enrich",
)


async def test_items_whose_tables_have_odd_names_go_all_the_way(empty_database_url: str) -> None:
    execute(empty_database_url, 'CREATE SCHEMA "Our.Shops"')
    for _ in range(2):
        await asyncio.to_thread(migrate, empty_database_url, Registry(ODD))
    execute(empty_database_url, """INSERT INTO "Our.Shops"."Shop ""A"".1" ("Shop No.") VALUES ('A 1'), ('b%2')""")
    async with running_service(empty_database_url, workflow=ODD) as service:
        answer = await service.stub.BatchUpdateStatus(
            pb.BatchUpdateStatusRequest(
                resource="shops", filter='status = "0% won\'t do"', status="Do 100%", request_id=str(uuid.uuid4())
            )
        )
        assert answer.batch.queued_count == 2
        rules = transition_table(ODD)
        async with service.database.autocommit() as connection:
            claimed = await claim(connection, ODD, rules, session=1, limit=2)
            assert {"a:b", "status", "Discount %"} < set(claimed.items[0].data)
            assert {(item.version, item.data["version"]) for item in claimed.items} == {(3, "1.0")}
            found = {f"{LONG}_1": 1, f"{LONG}_2": 2, "Discount %": 3}
            results = [Result(item, COMPLETE, values={"Shop": item.key, **found}) for item in claimed.items]
            assert (await finish(connection, ODD, rules, results)).saved == 2
        async with service.database.core() as connection:
            saved = await connection.execute(text('SELECT * FROM "Our.Shops"."Found" ORDER BY id'))
            assert [tuple(row) for row in saved] == [(1, "A 1", 1, 2, 3), (2, "b%2", 1, 2, 3)]
        items = (await service.stub.ListItems(pb.ListItemsRequest(resource="shops"))).items
        assert {(item.status, item.version, item.data["version"]) for item in items} == {("Do 100%", 4, "1.0")}
        assert {item.queue_status for item in items} == {pb.QUEUE_STATUS_COMPLETED}
