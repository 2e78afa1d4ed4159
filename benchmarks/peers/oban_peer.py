"""Oban for Python: `python oban_peer.py noop|job COUNT`, with PEER_URL. Prints jobs a second."""

import asyncio
import json
import os
import sys
import time

import uvloop
from oban import Oban, job
from oban.schema import install
from psycopg_pool import AsyncConnectionPool

from job import URL, Job

MODE, COUNT = sys.argv[1], int(sys.argv[2])
CONCURRENCY = 100
whole = Job(COUNT)


@job(queue="work")
async def work(number: int) -> None:
    if MODE == "job":
        await whole.run(number)
    else:
        whole.tick()


async def main() -> None:
    await whole.prepare()
    async with AsyncConnectionPool(URL, min_size=4, max_size=20, open=False) as pool:
        await install(pool)
        client = Oban(pool=pool)
        for first in range(1, COUNT + 1, 5000):
            await client.enqueue_many([work.new(n) for n in range(first, min(first + 5000, COUNT + 1))])
        node = Oban(pool=pool, queues={"work": CONCURRENCY}, name="node")
        began_s = time.perf_counter()
        await node.start()
        await whole.ended.wait()
        async with pool.connection() as connection:
            left = "SELECT EXISTS (SELECT FROM oban_jobs WHERE state <> 'completed')"
            while (await (await connection.execute(left)).fetchone())[0]:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        print(json.dumps({"per_s": COUNT / (time.perf_counter() - began_s)}), flush=True)
        os._exit(0)


uvloop.run(main())
