"""Calls that concern one item each and wait at the same time are carried out together: one statement, one commit.

A call that comes while no statement is under way is carried out at once. Calls that come while one is form the next
group, which begins when the statement has ended, or a moment later if that was of several calls. So an idle service
answers one call as fast as it can, and the more calls there are, the less each costs. One statement at a time is
enough: it waits for no item, and two made groups of half the size.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from shared.db.curate import CurateCall, Curated
from shared.db.curate_each import batch_of, curate_each, key_of
from shared.db.engine import Database
from shared.db.errors import was_refused
from shared.errands import Errands
from shared.table import TransitionTable
from shared.workflow import ItemKey, Workflow

SIZE_MAX = 100
"""Calls in one statement: all of them wait for the last."""
GATHER_S, GATHER_S_MAX = 0.001, 0.004
"""After a group of several, the next one waits so long for each call of it, and at most: more calls share a commit."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A call, and the future by which its caller is told what became of it."""

    call: CurateCall
    answer: asyncio.Future[Curated | None]

    @property
    def key(self) -> ItemKey:
        return key_of(self.call)

    @property
    def request_id(self) -> UUID | None:
        return batch_of(self.call).request_id


class UpdateGroups:
    """The groups of one resource."""

    def __init__(self, *, database: Database, workflow: Workflow, table: TransitionTable, errands: Errands) -> None:
        """What has begun is an errand, since it belongs to several callers: none of them ends it by leaving."""
        self._database, self._workflow, self._table, self._errands = database, workflow, table, errands
        self._waiting: dict[_Waiting, None] = {}
        """In order of arrival. A caller who leaves is taken out at once, however long the statement under way takes."""
        self._is_under_way = False

    @property
    def waiting_count(self) -> int:
        """Calls that are yet to begin."""
        return len(self._waiting)

    async def carry_out(self, call: CurateCall) -> Curated | None:
        """Carries out a call that concerns one item; None when it has to be carried out alone, and nothing was done.

        Raises:
            DatabaseUnavailable: as any other statement; it may have been carried out.
        """
        waiting = _Waiting(call, asyncio.get_running_loop().create_future())
        self._waiting[waiting] = None
        if not self._is_under_way:
            self._is_under_way = True
            self._errands.start(self._work)
        try:
            return await waiting.answer
        finally:
            self._waiting.pop(waiting, None)

    async def _work(self) -> None:
        """Carries out group after group while somebody waits."""
        try:
            while group := self._next_group():
                await self._carry_out_together(group)
                if len(group) > 1:  # more are on their way: those who have their answers call again
                    await asyncio.sleep(min(GATHER_S_MAX, GATHER_S * len(group)))
        finally:
            self._is_under_way = False

    def _next_group(self) -> Sequence[_Waiting]:
        """The calls that wait, in turn; of several with the same item, or the same request_id, the first."""
        group: list[_Waiting] = []
        keys, request_ids = set[ItemKey](), set[UUID]()
        for waiting in self._waiting:
            if len(group) == SIZE_MAX:
                break
            if waiting.answer.done() or waiting.key in keys or waiting.request_id in request_ids:
                continue
            group.append(waiting)
            keys.add(waiting.key)
            if waiting.request_id is not None:
                request_ids.add(waiting.request_id)
        for waiting in group:
            del self._waiting[waiting]
        return group

    async def _carry_out_together(self, group: Sequence[_Waiting]) -> None:
        answers: Sequence[Curated | None] = [None] * len(group)
        told: Iterable[_Waiting] = [*group, *self._waiting]  # where there is no connection, all have waited for it
        try:
            async with self._database.autocommit_of_many() as connection:
                told = group
                calls = [waiting.call for waiting in group]
                answers = await curate_each(connection, self._workflow, self._table, calls)
        except Exception as error:  # noqa: BLE001 - as each of them alone would have met it
            # Where it is certain that nothing was done, what one of them has caused is not the matter of the others.
            if not was_refused(error):
                _answer_all(told, error)
                return
        for waiting, answer in zip(group, answers, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(answer)


def _answer_all(told: Iterable[_Waiting], error: Exception) -> None:
    for waiting in told:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)
