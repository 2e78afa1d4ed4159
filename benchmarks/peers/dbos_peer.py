"""DBOS: `python dbos_peer.py noop|job COUNT`, with PEER_URL. Prints workflows a second, each without a step."""

import asyncio
import json
import os
import sys
import time

import psycopg
import sqlalchemy
from dbos import DBOS, DBOSClient

from job import URL, Job

MODE, COUNT = sys.argv[1], int(sys.argv[2])
POLL_S = 0.02
DRIVER_URL = URL.replace("postgresql://", "postgresql+psycopg://")
whole = Job(COUNT)
DBOS(
    config={
        "name": "bench",
        "system_database_url": DRIVER_URL,
        "application_version": "1",
        "executor_id": "1",
        "log_level": "WARNING",
        "run_admin_server": False,
    }
)
ready: asyncio.Lock | None = None


@DBOS.workflow()
async def work(number: int) -> None:
    global ready
    ready = ready or asyncio.Lock()
    async with ready:
        if whole._pool is None:
            await whole.prepare()  # in the event loop that runs the workflows
    if MODE == "job":
        await whole.run(number)
    else:
        whole.tick()


DBOS.listen_queues(["work"])
DBOS.launch()
client = DBOSClient(system_database_url=DRIVER_URL)
options = {"workflow_name": work.__qualname__, "queue_name": "work", "app_version": "1", "application_name": "bench"}
with sqlalchemy.create_engine(DRIVER_URL).begin() as connection:
    for number in range(1, COUNT + 1):
        client.enqueue_in_transaction(connection, dict(options), number)
began_s = time.perf_counter()
DBOS.register_queue("work", polling_interval_sec=POLL_S)
with psycopg.connect(URL, autocommit=True) as connection:
    left = "SELECT count(*) FROM dbos.workflow_status WHERE status <> 'SUCCESS'"
    while connection.execute(left).fetchone()[0]:
        time.sleep(0.05)
print(json.dumps({"per_s": COUNT / (time.perf_counter() - began_s)}), flush=True)
os._exit(0)
