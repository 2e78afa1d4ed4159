"""What claimer, runner and completer of one workflow share: the items this worker holds, from claim to commit.

An item is held until its result is committed, and the claimer never holds more than the lane's capacity. That one
bound holds for the queue of items, for the runner and for the results: when PostgreSQL is away nothing piles up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from enrichment_worker.bell import Bell
from enrichment_worker.upstream import Upstream
from shared.db.claim import SIZE_MAX
from shared.outcome import AttemptOutcome
from shared.table import TransitionTable
from shared.workflow import Item, ItemKey, Workflow

AHEAD_S = 0.2
"""Items for so many seconds of work are claimed ahead: enough to hide a claim, too little to hoard slow items."""
SAMPLE_S = 0.2
"""How often the rate of work is measured."""
NOWHERE = -1
"""No position in the log: that of a claim which was not committed may be given to another one."""

Hold = tuple[ItemKey, int]
"""An item as it was claimed: key and version. A key may be held twice, when a user took it away and queued it again."""
Term = tuple[float, float]
"""When an item may begin: not before, and not after, by the clock of the event loop."""
Report = tuple[ItemKey, int, str, float]
"""An item's progress: key, version, step, fraction."""


@dataclass(slots=True, eq=False)
class Taken:
    """One claim."""

    position: int
    """Its position in the log, by which the database knows it; `NOWHERE` if it was not committed."""
    left: int
    """How many of its items are held."""


class Lane:
    """The items of one workflow that this worker holds."""

    def __init__(
        self, workflow: Workflow, table: TransitionTable, *, ahead_max: int, upstream: Upstream | None = None
    ) -> None:
        """An empty lane; at most `ahead_max` items are claimed beyond those that run. `upstream` is what it calls."""
        self.workflow, self.table = workflow, table
        self.concurrency = workflow.limits.concurrency
        self.held: dict[Hold, Taken] = {}
        """Items whose results are not yet committed, and the claim that each came with."""
        self.in_doubt: set[Hold] = set()
        """Items that have begun before it is known whether their claim was committed. Nothing is written of them."""
        self.settled: list[int] = []
        """Claims of which nothing is held any more, by position; after the next one the database forgets them."""
        self.claimed = Bell()
        """Rung when watchers are to be told of a claim."""
        self.running: set[Hold] = set()
        """The items that an enricher has now."""
        self.items: asyncio.Queue[Item | None] = asyncio.Queue(self.concurrency + ahead_max)
        """Claimed and not yet begun; None tells the runner that no more will come."""
        self.work = Bell()
        """Rung when there may be something to claim, or room for it."""
        self.upstream = upstream or Upstream(workflow.api)
        """The external API, as this worker knows it."""
        self.upstream.lanes.append(self)
        self.pace = Bell()
        """Rung when there are items whose time has still to come."""
        self.draining = False
        """Operators want back what has not begun; the runner gives it back and begins nothing."""
        self.lost: set[Hold] = set()
        """Items still held here that are no longer this worker's: a user took them away, or others rescued them."""
        self.done = 0
        self.failed = 0
        self.dropped = 0
        self.refused = 0
        """Statements that the source did not allow, a trigger of it for instance."""
        self.cancelled = 0
        """Attempts that were told to end, or never begun, because their items were lost."""
        self.stuck = 0
        """Attempts that have not ended although they were told to; their places were given to others."""
        self._ahead_max = ahead_max
        self._ahead = min(ahead_max, self.concurrency)
        self._reports: dict[Hold, tuple[str, float]] = {}
        self._terms: deque[tuple[Term, Item]] = deque()
        self._sampled_at, self._settled = 0.0, 0

    @property
    def ahead(self) -> int:
        """How many items are claimed beyond those that run; follows the rate of work."""
        return self._ahead

    @property
    def room(self) -> int:
        """How many items may be claimed now."""
        return min(max(0, self.concurrency + self._ahead - len(self.held)), SIZE_MAX)

    @property
    def portion(self) -> int:
        """Room for how many items is worth a claim: half of what is claimed ahead, or each item would cost one."""
        return min(max(1, self._ahead // 2), SIZE_MAX)

    @property
    def is_busy(self) -> bool:
        """Whether more results will come without another claim."""
        return bool(self.running) or not self.items.empty()

    def bars(self, item: Item) -> bool:
        """Whether it is to be given back instead of begun."""
        return self.draining or self.upstream.bars((item.key, item.version))

    def take(
        self,
        items: Sequence[Item],
        position: int,
        *,
        now_s: float,
        more: bool = False,
        terms: Sequence[Term] | None = None,
        in_doubt: bool = False,
    ) -> None:
        """Holds what was claimed, and hands it to the runner at once or by `terms`; the queue may have `more`."""
        if more and self.items.empty():
            # The runner waited for this claim. So it does not for long: what is claimed ahead doubles until then.
            self._ahead = min(self._ahead_max, 2 * self._ahead)
        if not self.held:
            self._sampled_at, self._settled = now_s, 0  # a pause says nothing of the rate
        holds = [(item.key, item.version) for item in items]
        if self.lost:
            # A database that lost its last commits may give the same once more.
            self.lost.difference_update(holds)
        self.held.update(dict.fromkeys(holds, Taken(position, len(items))))
        if in_doubt:
            self.in_doubt.update(holds)
        if terms is not None:
            self._terms.extend(zip(terms, items, strict=True))
            self.pace.ring()
        else:
            for item in items:
                self.items.put_nowait(item)
        if items and not in_doubt:  # last, so that the items begin first
            self.claimed.ring()

    def end_doubt(self, lost: AbstractSet[Hold]) -> None:
        """It is known what became of the claim in doubt: these of its items are not this worker's, the others are.

        Where some are, it was committed: the others were taken away since.
        """
        if self.in_doubt - lost:
            self.claimed.ring()
        else:
            for hold in lost:
                self.held[hold].position = NOWHERE
        self.in_doubt.clear()

    def hand_out(self, now_s: float) -> tuple[list[Item], float | None]:
        """Hands the runner the items that are due. Returns those whose time has passed, and when the next is due."""
        lapsed: list[Item] = []
        while self._terms and (term := self._terms[0][0])[0] <= now_s:
            _, item = self._terms.popleft()
            if now_s > term[1]:
                lapsed.append(item)
            else:
                self.items.put_nowait(item)
        return lapsed, self._terms[0][0][0] if self._terms else None

    def take_back(self) -> list[Item]:
        """Takes what has not begun from the runner; it is held until it is settled."""
        taken = [item for _, item in self._terms]
        self._terms.clear()
        while not self.items.empty():
            item = self.items.get_nowait()
            if item is None:
                self.items.put_nowait(None)  # the runner stops: there are only more of these
                break
            taken.append(item)
        return taken

    def saw(self, item: Item, outcome: AttemptOutcome) -> AttemptOutcome:
        """Notes what an attempt says of the external API. Returns how the attempt is to end."""
        return self.upstream.saw((item.key, item.version), outcome, backoff_s=self.workflow.limits.backoff_s)

    def begin(self, item: Item) -> None:
        """An enricher has it now."""
        self.running.add((item.key, item.version))

    def end(self, item: Item) -> None:
        """Its attempt has ended; progress that nobody saw yet is of no interest any more."""
        self.running.discard((item.key, item.version))
        if self._reports:
            self._reports.pop((item.key, item.version), None)

    def settle(self, items: Sequence[Item], *, now_s: float) -> None:
        """Their results are committed: there is room for others."""
        for item in items:
            hold = (item.key, item.version)
            taken = self.held.pop(hold, None)
            if taken is None:
                continue  # held once more, and settled before
            taken.left -= 1
            if not taken.left and taken.position != NOWHERE:
                self.settled.append(taken.position)
            if self.lost:
                self.lost.discard(hold)
        self._settled += len(items)
        self._measure(now_s)
        self.work.ring()

    def report(self, item: Item, step: str, fraction: float) -> None:
        """Keeps an item's latest progress until it is written. May be called from a thread, even one past its time."""
        hold = (item.key, item.version)
        if hold in self.running:
            self._reports[hold] = (step, fraction)

    def take_reports(self) -> list[Report]:
        """The latest progress of each item that has made some since the last call."""
        if self.in_doubt:
            return []
        reports, self._reports = self._reports, {}
        return [(*hold, *report) for hold, report in reports.items() if hold not in self.lost]

    def _measure(self, now_s: float) -> None:
        elapsed_s = now_s - self._sampled_at
        if elapsed_s < SAMPLE_S:
            return
        wanted = int(self._settled / elapsed_s * AHEAD_S)
        self._ahead = min(self._ahead_max, max(1, (self._ahead + wanted) // 2))
        self._sampled_at, self._settled = now_s, 0
