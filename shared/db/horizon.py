"""How far the log may be read: behind every transaction that may still commit an earlier position.

Positions are drawn by transactions that commit in any order. A reader that only remembers the last position loses
those that commit late. So: note the highest position drawn so far, then draw a transaction id; whoever drew a position
up to there has a lower id, for a writer gets its own before it draws a position: with its first lock of a row. Once the
oldest transaction under way is not below that id, everything up to the noted position is visible, or never will be.

The upper end of a snapshot would not do in place of the id: it is one above the last transaction that *ended*, and a
transaction under way may well be above it.
"""

from __future__ import annotations

import time
from collections import deque

from shared.db.engine import Connection

NOTE = """SELECT last_value, CASE WHEN last_value > {newest} THEN pg_current_xact_id()::text::bigint END
FROM status_event_position"""
"""Reads the highest position drawn so far, and then draws a bound: a transaction id above those of all who drew up to
there. The order is certain, for PostgreSQL fetches a row before it computes what is selected of it. An id is drawn only
when there are new positions, so never more often than others write."""
_ASK = NOTE.format(newest="%s")


class Horizon:
    """The safe position, moved on by `advance`."""

    def __init__(self) -> None:
        self.position = 0
        """Everything up to here is committed or never will be."""
        self._noted: deque[tuple[int, int, float]] = deque()
        """Position, bound and time of each note that the horizon has not passed."""

    @property
    def waiting_s(self) -> float:
        """For how long a transaction that is still open has kept the horizon back; 0 when none does."""
        return time.monotonic() - self._noted[0][2] if self._noted else 0.0

    @property
    def newest(self) -> int:
        """The highest position that was noted."""
        return self._noted[-1][0] if self._noted else self.position

    async def advance(self, connection: Connection) -> int:
        """Asks the database, on a connection in autocommit, and returns the safe position."""
        await self.note(connection)
        if self._noted:
            cursor = await connection.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
            row = await cursor.fetchone()
            assert row is not None
            self.learn(row[0])
        return self.position

    async def note(self, connection: Connection) -> None:
        """Asks for `NOTE`."""
        row = await (await connection.execute(_ASK, (self.newest,))).fetchone()
        assert row is not None
        self.noted(*row)

    def noted(self, drawn: int, bound: int | None) -> None:
        """Takes the answer to `NOTE`."""
        if bound is not None:
            self._noted.append((drawn, bound, time.monotonic()))

    def learn(self, oldest: int) -> None:
        """Moves on. `oldest` is the oldest transaction under way, asked for after everything that was noted."""
        while self._noted and oldest >= self._noted[0][1]:
            self.position = self._noted.popleft()[0]
