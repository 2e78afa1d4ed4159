"""Entries in the log without anybody who curates: what the benchmarks of streams write."""

from __future__ import annotations

import psycopg

APPEND = """
INSERT INTO status_event (position, part, resource, kind, from_status, to_status, items, versions, attempts)
SELECT nextval('status_event_position'), 1, 'places', 'curate', 'New', 'Selected', i.items, i.ones, i.ones
FROM (SELECT array_agg(gen_random_uuid()::text) AS items, array_agg(1) AS ones FROM generate_series(1, {items})) i
WHERE pg_current_xact_id() IS NOT NULL
"""
"""One entry as the writer appends it, its transaction's id drawn before its position; of items that nobody has."""


async def append(url: str, *, commits: int, items: int) -> None:
    """Commits so many entries, one behind the other, each with a notification, as fast as PostgreSQL does it."""
    body = f"""DO $$ BEGIN FOR i IN 1..{commits} LOOP
        {APPEND.format(items=items)}; PERFORM pg_notify('curation', 'places'); COMMIT; END LOOP; END $$"""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(body)
