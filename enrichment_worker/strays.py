"""Items that the database says this worker has, and that this worker knows nothing of.

A claim whose commit came through while its answer was lost leaves such items. Their session lives, so nobody would
ever rescue them. Found and released by the claimer, the only one that could claim more meanwhile.
"""

from __future__ import annotations

from enrichment_worker.lane import Lane
from shared.db.engine import Connection
from shared.db.finish import Result, finish
from shared.db.in_hand import own_items


async def release_strays(connection: Connection, lane: Lane, *, session: int) -> int:
    """Gives back the items of this session that the lane does not hold. Returns how many those were."""
    strays = [
        Result(item, "release")
        for item in await own_items(connection, lane.workflow, session)
        if (item.key, item.version) not in lane.held
    ]
    # What was settled since it was read has another version: nothing is done to it.
    return (await finish(connection, lane.workflow, lane.table, strays)).saved if strays else 0
