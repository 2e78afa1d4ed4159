"""Which of an entry's items match the filters that watchers have; asked once for all watchers of the same filter."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ARRAY, any_, bindparam, select, true

from curation_service.fields import item_table
from curation_service.watch_request import WatchRequest
from shared.db.engine import Database
from shared.db.log import Entry
from shared.errands import Errands

ANSWERS_MAX = 2_000
"""Answers that are kept for the next watcher, each of one entry and one filter."""

Place = tuple[str, str, int, int]
"""Resource, filter, position and part."""


class Matches:
    """Asks the database, and keeps the newest answers."""

    def __init__(self, *, database: Database, errands: Errands) -> None:
        self._database, self._errands = database, errands
        self._answers: OrderedDict[Place, Sequence[int]] = OrderedDict()
        self._asking: dict[tuple[str, str], asyncio.Lock] = {}

    async def of(self, watch: WatchRequest, entries: Sequence[Entry]) -> Mapping[tuple[int, int], Sequence[int]]:
        """For each entry, by position and part, the indexes of its items that match now, or did a moment ago."""
        question = watch.workflow.resource, watch.filter
        lock = self._asking.setdefault(question, asyncio.Lock())
        try:
            async with lock:
                found = {(e.position, e.part): self._answers.get((*question, e.position, e.part)) for e in entries}
                missing = [entry for entry in entries if found[entry.position, entry.part] is None]
                if missing:
                    matching = await self._errands.run(lambda: self._ask(watch, missing))
                    for entry in missing:
                        answer = [index for index, key in enumerate(entry.items) if key in matching]
                        found[entry.position, entry.part] = answer
                        self._keep((*question, entry.position, entry.part), answer)
        finally:
            if not lock.locked():
                self._asking.pop(question, None)
        return {place: answer or () for place, answer in found.items()}

    async def _ask(self, watch: WatchRequest, entries: Iterable[Entry]) -> frozenset[str]:
        """Those keys of these entries whose items match now."""
        key, kind = item_table(watch.workflow).fields["id"].column, watch.workflow.key.type
        typed = [kind.python_type(key) for key in {key for entry in entries for key in entry.items}]
        # As one array: as parameters of their own they may be more than a statement can have.
        among: Any = key == any_(bindparam("keys", typed, type_=ARRAY(kind)))
        condition = true() if watch.condition is None else watch.condition
        async with self._database.core() as connection:
            return frozenset(str(key) for key in await connection.scalars(select(key).where(among, condition)))

    def _keep(self, place: Place, answer: Sequence[int]) -> None:
        self._answers[place] = answer
        if len(self._answers) > ANSWERS_MAX:
            self._answers.popitem(last=False)
