"""Makes a source table a partitioned one, as an operator would; the workflow that declares it stays as it is."""

from __future__ import annotations

from sqlalchemy import text

from shared.db.engine import Database

PARTITIONS = 4


async def partition_by_key(database: Database, table: str) -> None:
    """Puts in place of an empty table one of the same columns and indexes, hash-partitioned by `id`."""
    statements = [
        f"ALTER TABLE {table} RENAME TO {table}_whole",
        f"CREATE TABLE {table} (LIKE {table}_whole INCLUDING ALL) PARTITION BY HASH (id)",
        *(
            f"CREATE TABLE {table}_{n} PARTITION OF {table} FOR VALUES WITH (MODULUS {PARTITIONS}, REMAINDER {n})"
            for n in range(PARTITIONS)
        ),
    ]
    async with database.core() as connection:
        for statement in statements:
            await connection.execute(text(statement))
