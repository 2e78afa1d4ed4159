"""The raw floor of a drain: the least that psycopg and PostgreSQL do for it, without a machine, a fence or a worker.

One connection claims, another completes: status columns of a row of 500 bytes, the data upserted, one entry of the log
for each of the two transactions. The tables have what this needs and nothing else.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

import psycopg

BATCH = 2000
"""With which it is fastest, of 500 to 4,000."""
TABLES = """
DROP TABLE IF EXISTS source, target, log;
CREATE TABLE source (
    id uuid PRIMARY KEY DEFAULT uuidv7(), status text NOT NULL DEFAULT 'New', queue text, error text,
    attempt int NOT NULL DEFAULT 0, version bigint NOT NULL DEFAULT 1, worker bigint, run_at timestamptz, batch bigint,
    payload jsonb NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX ON source (run_at, id) WHERE queue = 'queued';
CREATE TABLE target (
    source uuid PRIMARY KEY, name text, latitude float8, longitude float8, raw jsonb, seen_at timestamptz
);
CREATE TABLE log (
    position bigint GENERATED ALWAYS AS IDENTITY, xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    items uuid[], versions bigint[], from_queue text, to_queue text, at timestamptz DEFAULT now()
);
CREATE INDEX ON log (xid, position)
"""
FILL = """
INSERT INTO source (payload, queue, run_at)
SELECT jsonb_build_object('name', repeat('x', 400), 'n', n), 'queued', now() FROM generate_series(1, %s) n
"""
CLAIM = """
WITH next AS MATERIALIZED (
    SELECT id FROM source WHERE queue = 'queued' AND run_at <= now() ORDER BY run_at, id LIMIT %s FOR UPDATE SKIP LOCKED
), changed AS (
    UPDATE source s SET queue = 'processing', attempt = attempt + 1, version = version + 1, worker = 1
    FROM next WHERE s.id = next.id RETURNING s.id, s.version, s.payload
), logged AS (
    INSERT INTO log (items, versions, from_queue, to_queue)
    SELECT array_agg(id), array_agg(version), 'queued', 'processing' FROM changed
) SELECT * FROM changed
"""
COMPLETE = """
WITH given AS MATERIALIZED (
    SELECT unnest(%s::uuid[]) AS id, unnest(%s::bigint[]) AS version, unnest(%s::text[]) AS name,
           unnest(%s::float8[]) AS latitude, unnest(%s::float8[]) AS longitude, unnest(%s::text[]) AS raw
), changed AS (
    UPDATE source s SET queue = 'completed', error = NULL, version = s.version + 1 FROM given g
    WHERE s.id = g.id AND s.version = g.version AND s.queue = 'processing' RETURNING s.id, s.version
), saved AS (
    INSERT INTO target (source, name, latitude, longitude, raw, seen_at)
    SELECT id, g.name, g.latitude, g.longitude, g.raw::jsonb, now() FROM changed JOIN given g USING (id)
    ON CONFLICT (source) DO UPDATE SET name = excluded.name, latitude = excluded.latitude,
        longitude = excluded.longitude, raw = excluded.raw, seen_at = excluded.seen_at
), logged AS (
    INSERT INTO log (items, versions, from_queue, to_queue)
    SELECT array_agg(id), array_agg(version), 'processing', 'completed' FROM changed
) SELECT count(*) FROM changed
"""


def drain(url: str, count: int, *, batch: int = BATCH) -> float:
    """Items a second, of so many that were queued before."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(TABLES)
        connection.execute(FILL, [count])
        connection.execute("VACUUM ANALYZE source")
    claimed: queue.Queue[list[Any]] = queue.Queue(4)
    completing = threading.Thread(target=_complete, args=(url, claimed))
    with psycopg.connect(url, autocommit=True, options="-c jit=off") as connection:
        cursor = connection.cursor(binary=True)
        began_s = time.perf_counter()
        completing.start()
        while rows := cursor.execute(CLAIM, [batch]).fetchall():
            claimed.put(rows)
        claimed.put([])
        completing.join()
        took_s = time.perf_counter() - began_s
        row = connection.execute("SELECT count(*) FROM source WHERE queue = 'completed'").fetchone()
        assert row is not None
        assert row[0] == count, f"{row[0]} of {count} completed"
    return count / took_s


def _complete(url: str, claimed: queue.Queue[list[Any]]) -> None:
    with psycopg.connect(url, autocommit=True, options="-c jit=off") as connection:
        cursor = connection.cursor(binary=True)
        while rows := claimed.get():
            n = len(rows)
            facts: list[list[Any]] = [["a name"] * n, [48.1] * n, [11.6] * n, ['{"a": 1}'] * n]
            cursor.execute(COMPLETE, [[row[0] for row in rows], [row[1] for row in rows], *facts])
