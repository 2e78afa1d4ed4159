"""How far the log may be read: behind every transaction that may still commit an earlier position.

Positions are drawn by transactions that commit in any order. A reader that only remembers the last position loses
those that commit late. So: note the highest position drawn so far, then the transaction id that will be given next;
whoever drew a position up to there has a lower id, for a writer gets its own before it draws a position: with its first
lock of a row. Once the oldest transaction under way is not below that id, everything up to the noted position is
visible, or never will be.

The upper end of a snapshot would not do in place of that id: it is one above the last transaction that *ended*, and a
transaction under way may well be above it. So its distance from the counter, its age, is added.
"""

from __future__ import annotations

import time
from collections import deque

from shared.db.engine import Connection

NOTE = """SELECT last_value, pg_snapshot_xmax(pg_current_snapshot())::text::bigint
                   + age(pg_snapshot_xmax(pg_current_snapshot())::xid)
FROM status_event_position"""
"""Reads the highest position drawn so far, and then the id that is next. The order is certain, for PostgreSQL fetches a
row before it computes what is selected of it, and looks at the counter when a transaction first asks for an age.
Nothing is written, and no id drawn: replicas that ask at the same time would wait for one another."""
_OLDEST = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"

NOTES_MAX = 1_000
"""Notes that are kept, beside a transaction that is open for hours and others that write: of more, the newest gives its
place to the next, which lies behind it. A second's worth: what is held back for longer comes in one step fewer."""


class Horizon:
    """The safe position, moved on by `advance`, or by whoever asks for `NOTE` together with something else."""

    def __init__(self) -> None:
        self.position = 0
        """Everything up to here is committed or never will be."""
        self._noted: deque[tuple[int, int, float]] = deque()
        """Position, bound and time of each note that the horizon has not passed."""

    @property
    def waiting_s(self) -> float:
        """For how long a transaction that is still open has kept the horizon back; 0 when none does."""
        return time.monotonic() - self._noted[0][2] if self._noted else 0.0

    async def advance(self, connection: Connection) -> int:
        """Asks the database, on a connection in autocommit, and returns the safe position."""
        noted = await (await connection.execute(NOTE)).fetchone()
        oldest = await (await connection.execute(_OLDEST)).fetchone()
        assert noted is not None
        assert oldest is not None
        self.learn(*noted, *oldest)
        return self.position

    def learn(self, drawn: int, bound: int, oldest: int) -> None:
        """Moves on by the answer to `NOTE`, and the oldest transaction under way, asked for after it."""
        if drawn > (self._noted[-1][0] if self._noted else self.position):
            if len(self._noted) == NOTES_MAX:
                self._noted.pop()
            self._noted.append((drawn, bound, time.monotonic()))
        while self._noted and oldest >= self._noted[0][1]:
            self.position = self._noted.popleft()[0]
