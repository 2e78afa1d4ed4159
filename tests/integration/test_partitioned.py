"""A workflow whose source table is hash-partitioned by its key goes all the way, as any other."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter

from sqlalchemy import text

from curation.v1 import curation_pb2 as pb
from tests.support.partitioned import PARTITIONS, partition_by_key
from tests.support.service import WAIT_S, running_service
from tests.support.worker import World

ADD = "INSERT INTO gadgets (name) SELECT 'g' || n FROM generate_series(1, 40) AS n"


async def test_items_of_all_partitions_are_curated_enriched_and_told_of(world: World) -> None:
    async with running_service(world.url, workflow=world.workflow) as service, world.worker():
        await partition_by_key(service.database, "gadgets")
        async with service.database.core() as connection:
            await connection.execute(text(ADD))
            spread = await connection.scalar(text("SELECT count(DISTINCT tableoid) FROM gadgets"))
        assert spread == PARTITIONS
        answer = await service.stub.BatchUpdateStatus(
            pb.BatchUpdateStatusRequest(
                resource="gadgets", filter='status = "New"', status="Wanted", request_id=str(uuid.uuid4())
            )
        )
        assert answer.batch.queued_count == 40
        kinds = Counter[str]()
        async with asyncio.timeout(WAIT_S):
            watched = service.stub.WatchStatus(
                pb.WatchStatusRequest(
                    resource="gadgets",
                    batch_id=answer.batch.batch_id,
                    resume_token=answer.resume_token,
                    end_when_done=True,
                    skip_progress=True,
                )
            )
            async for message in watched:
                kinds.update(event.kind for event in message.events.events)
    assert kinds == {"claim": 40, "complete": 40}
    assert {row["code"] for row in await world.details()} == {f"g{n}" for n in range(1, 41)}
