"""Which of an entry's items match the filters that watchers have; asked once for all watchers of the same filter.

An item matches if it does with the statuses from before the change, or with those from after it. So whoever watches
`status = "New"` is told that an item is new, and that it no longer is; and is told the same at every replica, whenever
it reads. All else of an item is not in the log, and counts as it is when it is asked for.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

from sqlalchemy import ARRAY, ColumnElement, any_, bindparam, cast, or_, select, true
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.visitors import replacement_traverse

from curation_service.cache import LruCache
from curation_service.fields import item_table
from curation_service.watch_request import WatchRequest
from shared.db.engine import Database
from shared.db.log import Entry
from shared.errands import Errands

CACHE_SIZE_MAX = 200_000
"""Indexes that are cached, in answers of one entry and one filter each."""
ANSWER_OVERHEAD = 10
"""What an answer takes beside its indexes, in indexes."""

Question = tuple[str, str, int, int]
"""Resource and filter; position and part of an entry."""
Moves = tuple[tuple[str, str | None], tuple[str, str | None]]
"""Status and queue status, before and after."""


class Matches:
    """Asks the database, and caches the answers."""

    def __init__(self, *, database: Database, errands: Errands) -> None:
        self._database, self._errands = database, errands
        self._answers = LruCache[Question, Sequence[int]](CACHE_SIZE_MAX, lambda answer: len(answer) + ANSWER_OVERHEAD)
        self._asking: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def of(self, watch: WatchRequest, entries: Sequence[Entry]) -> Mapping[tuple[int, int], Sequence[int]]:
        """For each entry, by position and part, the indexes of its items that match."""
        question = watch.workflow.resource, watch.filter
        lock = self._asking.setdefault(question, asyncio.Lock())
        async with lock:
            found = {(e.position, e.part): self._answers.get((*question, e.position, e.part)) for e in entries}
            missing = [entry for entry in entries if found[entry.position, entry.part] is None]
            if missing:
                for entry, matching in await self._errands.run(lambda: self._ask(watch, missing)):
                    answer = [index for index, key in enumerate(entry.items) if key in matching]
                    found[entry.position, entry.part] = answer
                    self._answers.put((*question, entry.position, entry.part), answer)
        return {place: answer or () for place, answer in found.items()}

    async def _ask(self, watch: WatchRequest, entries: Iterable[Entry]) -> Sequence[tuple[Entry, frozenset[str]]]:
        """Entries, each with a set of keys that match: those of its own items among them."""
        alike: defaultdict[Moves, list[Entry]] = defaultdict(list)
        for entry in entries:
            alike[(entry.from_status, entry.from_queue), (entry.to_status, entry.to_queue)].append(entry)
        async with self._database.core() as connection:
            return [
                (entry, matching)
                for moves, group in alike.items()
                for matching in [await _matching(connection, watch, moves, group)]
                for entry in group
            ]


async def _matching(
    connection: AsyncConnection, watch: WatchRequest, moves: Moves, entries: Iterable[Entry]
) -> frozenset[str]:
    """Those keys of entries that made the same move whose items match."""
    key, kind = item_table(watch.workflow).fields["id"].column, watch.workflow.key.type
    typed = [kind.python_type(key) for key in {key for entry in entries for key in entry.items}]
    # As one array: as parameters of their own they may be more than a statement can have.
    among: Any = key == any_(bindparam("keys", typed, type_=ARRAY(kind)))
    condition = or_(*(_with_statuses(watch, *pair) for pair in dict.fromkeys(moves)))
    return frozenset(str(key) for key in await connection.scalars(select(key).where(among, condition)))


def _with_statuses(watch: WatchRequest, status: str, queue_status: str | None) -> ColumnElement[bool]:
    """The filter's condition for items that have these statuses."""
    columns, workflow = item_table(watch.workflow).source.c, watch.workflow
    given: dict[Any, str | None] = {
        columns[workflow.curation.column]: status,
        columns[workflow.queue.status]: queue_status,
    }

    def replaced(element: object, **_: object) -> Any:
        if isinstance(element, ColumnElement) and element in given:
            # By its type: PostgreSQL cannot tell that of a parameter which only meets NULL.
            return cast(bindparam(None, given[element], type_=element.type, unique=True), element.type)
        return None

    condition: ColumnElement[bool] = true() if watch.event_condition is None else watch.event_condition
    return replacement_traverse(condition, {}, replaced)
