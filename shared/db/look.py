"""The look that a tail takes at the log, in one round trip: how far it is safe to read, and what is there."""

from __future__ import annotations

from shared.db.engine import Connection
from shared.db.horizon import NOTE, Horizon
from shared.db.libpq import Adapter, answer
from shared.db.log import LOOK, Entry, looked_up

_PREPARE = f"""PREPARE note AS {NOTE};
PREPARE look (bigint, bigint) AS {LOOK.format(after="$1", through=2**63 - 1, limit="$2")}"""


class Look:
    """Looks over one connection, in autocommit, that nothing else prepares statements on."""

    def __init__(self, connection: Connection, horizon: Horizon) -> None:
        self._connection, self._horizon, self._adapter = connection, horizon, Adapter(connection)

    async def prepare(self) -> None:
        """To be called before the first look: otherwise two statements in one message are planned anew each time."""
        await self._connection.execute(_PREPARE)

    async def take(self, *, after: int, limit: int) -> list[Entry]:
        """Moves the horizon on, and returns entries after a position as `read_log` does, some beyond the horizon.

        The second statement sees more than the first, and who has ended since: beside a busy writer one that noted and
        looked by one snapshot would find somebody under way much more often.
        """
        statements = f"EXECUTE note; EXECUTE look ({after}, {limit})"
        self._connection.pgconn.send_query(statements.encode())
        noted, found = [self._adapter.rows(result) for result in await answer(self._connection)]
        [(drawn, bound)], (oldest, entries) = noted, looked_up(found)
        self._horizon.learn(drawn, bound, oldest)
        return entries
