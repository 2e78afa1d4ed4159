"""Each entry is asked of the database once for all watchers of a filter, however their questions meet."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from curation_service.matches import Matches
from curation_service.watch_request import WatchRequest
from shared.db.log import Entry
from shared.errands import Errands
from tests.support.entries import entry
from tests.support.parcels import PARCELS

NOBODY: Any = None
WATCH = WatchRequest(
    workflow=PARCELS,
    keys=None,
    items=None,
    batch=None,
    condition=None,
    filter="size > 1",
    event_condition=None,
    after=None,
    skip_snapshot=True,
    end_when_done=False,
    skip_progress=False,
)


class Asked(Matches):
    """Counts the questions; each is answered a turn of the loop later: all items match."""

    def __init__(self) -> None:
        super().__init__(database=NOBODY, errands=Errands(at_once=2))
        self.asked: Counter[int] = Counter()

    async def _ask(self, watch: WatchRequest, entries: Iterable[Entry]) -> Sequence[tuple[Entry, frozenset[str]]]:
        entries = list(entries)
        self.asked.update(each.position for each in entries)
        await asyncio.sleep(0)  # noqa: TID251 - one turn
        return [(each, frozenset(each.items)) for each in entries]


async def test_an_entry_is_asked_for_once_though_one_comes_back_while_another_waits() -> None:
    matches, entries = Asked(), [entry(n, 5) for n in range(1, 9)]

    async def follow(behind: int) -> None:
        """Reads what is new, some entries at a time, as a stream does."""
        for start in range(0, len(entries), behind):
            some = entries[start : start + behind]
            found = await matches.of(WATCH, some)
            assert found == {(each.position, each.part): list(range(5)) for each in some}

    await asyncio.gather(*(follow(behind) for behind in (1, 2, 3, 4, 1)))
    assert matches.asked == Counter(each.position for each in entries)
