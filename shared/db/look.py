"""The look that a tail takes at the log, in one round trip: how far it is safe to read, and what is there."""

from __future__ import annotations

from psycopg.types.numeric import Int8

from shared.db.engine import Connection
from shared.db.horizon import NOTE, Horizon
from shared.db.log import READ, Entry
from shared.db.prepared import Prepared

_LOOK = Prepared.of(
    f"""/* look */
SELECT n.*, l.* FROM ({NOTE}) n LEFT JOIN ({READ}) l ON true""".encode()  # noqa: S608 # our own names
)


async def look(connection: Connection, horizon: Horizon, *, after: int, limit: int) -> list[Entry]:
    """Moves the horizon on, and returns entries after a position as `read_log` does, some beyond the horizon.

    What the horizon passes is seen: all that drew up to there had ended when the statement began. The connection is in
    autocommit, for a transaction asks for the next id but once.
    """
    rows = await _LOOK.run(connection, {"after": Int8(after), "through": Int8(2**63 - 1), "limit": Int8(limit)})
    horizon.learn(*rows[0][:3])
    return [Entry(*row[3:]) for row in rows if row[3] is not None]
