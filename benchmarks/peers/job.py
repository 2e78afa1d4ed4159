"""The whole job, written in a peer's handler as its users write it: status row, upsert, status row; each committed."""

import asyncio
import os

import asyncpg

URL = os.environ["PEER_URL"]
POOL_SIZE = 20
TABLES = """
DROP TABLE IF EXISTS job_source, job_target;
CREATE TABLE job_source (
    id bigint PRIMARY KEY, payload text, status text NOT NULL DEFAULT 'queued', changed timestamptz
);
CREATE TABLE job_target (id bigint PRIMARY KEY, name text, raw text, seen timestamptz);
CREATE INDEX ON job_source (status);
"""
FILL = "INSERT INTO job_source (id, payload) SELECT n, repeat('x', 400) FROM generate_series(1, $1::bigint) n"
BEGIN = "UPDATE job_source SET status = 'processing', changed = now() WHERE id = $1"
SAVE = """INSERT INTO job_target (id, name, raw, seen) VALUES ($1, $2, $3, now())
          ON CONFLICT (id) DO UPDATE SET name = excluded.name, raw = excluded.raw, seen = excluded.seen"""
END = "UPDATE job_source SET status = 'completed', changed = now() WHERE id = $1"


class Job:
    """A handler's work, and the count of what is done."""

    def __init__(self, count: int) -> None:
        self.count, self.done = count, 0
        self.ended = asyncio.Event()
        self._pool = None

    async def prepare(self) -> None:
        """Makes the tables anew, and fills them."""
        self._pool = await asyncpg.create_pool(URL, min_size=POOL_SIZE, max_size=POOL_SIZE)
        await self._pool.execute(TABLES)
        await self._pool.execute(FILL, self.count)
        await self._pool.execute("VACUUM ANALYZE job_source")

    async def run(self, number: int) -> None:
        """One item from queued to completed."""
        await self._pool.execute(BEGIN, number)
        await self._pool.execute(SAVE, number, "a name", '{"a": 1}')
        await self._pool.execute(END, number)
        self.tick()

    def tick(self) -> None:
        """One is done."""
        self.done += 1
        if self.done == self.count:
            self.ended.set()
