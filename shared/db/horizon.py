"""How far the log may be read: behind every transaction that may still commit an earlier position.

Positions are drawn by transactions that commit in any order. A reader that only remembers the last position loses
those that commit late. So: note the highest position drawn so far, then the transactions under way; each that may
have drawn a position up to there is among them or has ended. Once the oldest transaction under way is younger than
all those noted, everything up to the noted position is visible, or never will be.
"""

from __future__ import annotations

import time
from collections import deque

from shared.db.engine import Connection


class Horizon:
    """The safe position, moved on by `advance`."""

    def __init__(self) -> None:
        self.position = 0
        """Everything up to here is committed or never will be."""
        self._noted: deque[tuple[int, int, float]] = deque()

    @property
    def waiting_s(self) -> float:
        """For how long a transaction that is still open has kept the horizon back; 0 when none does."""
        return time.monotonic() - self._noted[0][2] if self._noted else 0.0

    async def advance(self, connection: Connection) -> int:
        """Asks the database, outside of any transaction, and returns the safe position."""
        # Two statements, in this order: the snapshot must be younger than the position.
        row = await (await connection.execute("SELECT last_value FROM status_event_position")).fetchone()
        assert row is not None
        drawn: int = row[0]
        row = await (
            await connection.execute(
                """SELECT pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint
                   FROM pg_current_snapshot() s"""
            )
        ).fetchone()
        assert row is not None
        oldest, next_ = int(row[0]), int(row[1])
        highest = self._noted[-1][0] if self._noted else self.position
        if drawn > highest:
            self._noted.append((drawn, next_, time.monotonic()))
        while self._noted and oldest >= self._noted[0][1]:
            self.position = self._noted.popleft()[0]
        return self.position
