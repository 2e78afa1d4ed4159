"""pgqueuer: `python pgqueuer_peer.py noop|job COUNT`, with PEER_URL. Prints jobs a second."""

import asyncio
import json
import os
import sys
import time

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.queries import Queries

from job import URL, Job

BATCH_SIZE = 1000


async def main(mode: str, count: int) -> None:
    job = Job(count)
    await job.prepare()
    connection = await asyncpg.connect(URL)
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    numbers = [str(number).encode() for number in range(1, count + 1)]
    await queries.enqueue(["work"] * count, numbers, [0] * count)
    await connection.execute("VACUUM ANALYZE")
    manager = PgQueuer(AsyncpgPoolDriver(await asyncpg.create_pool(URL, min_size=4, max_size=10)))

    @manager.entrypoint("work")
    async def work(queued) -> None:
        if mode == "job":
            await job.run(int(queued.payload))
        else:
            job.tick()

    began_s = time.perf_counter()
    running = asyncio.create_task(manager.run(batch_size=BATCH_SIZE))
    await job.ended.wait()
    while await connection.fetchval("SELECT EXISTS (SELECT FROM pgqueuer)"):
        assert not running.done()
        await asyncio.sleep(0.005)
    print(json.dumps({"per_s": count / (time.perf_counter() - began_s)}), flush=True)
    os._exit(0)  # it would wait for its next look


uvloop.run(main(sys.argv[1], int(sys.argv[2])))
