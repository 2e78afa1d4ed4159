"""Items that the database says this worker has, and that this worker knows nothing of.

A claim whose commit came through while its answer was lost leaves such items. Their session lives, so nobody would
ever rescue them. Found and released by the claimer, the only one that could claim more meanwhile.
"""

from __future__ import annotations

from psycopg import sql

from enrichment_worker.lane import Lane
from shared.db.engine import Connection
from shared.db.finish import Result, finish
from shared.workflow import Item

OWN_ITEMS = sql.SQL(
    "/* own_items */ SELECT {key}, version, {attempts} FROM {source} WHERE {worker} = %s AND {status} = 'processing'"
)


async def release_strays(connection: Connection, lane: Lane, *, session: int) -> int:
    """Gives back the items of this session that the lane does not hold. Returns how many those were."""
    workflow, queue = lane.workflow, lane.workflow.queue
    names = {
        "key": workflow.key.name,
        "attempts": queue.attempts,
        "worker": queue.worker,
        "status": queue.status,
    }
    columns = {name: sql.Identifier(column) for name, column in names.items()}
    source = sql.Identifier(*filter(None, (workflow.source.schema, workflow.source.name)))
    cursor = await connection.execute(OWN_ITEMS.format(source=source, **columns), [session])
    strays = [
        Result(Item(key, version, attempts, {}), "release")
        for key, version, attempts in await cursor.fetchall()
        if (key, version) not in lane.held
    ]
    if strays:
        await finish(connection, workflow, lane.table, strays)
    return len(strays)
