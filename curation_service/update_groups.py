"""Calls that concern one item each and wait at the same time are carried out together: one statement, one commit.

Nobody waits for company. A call that comes while no statement is under way goes at once; those that come meanwhile go
together when it has ended. So an idle service answers one call as fast as it can, and the more calls there are, the
less each of them costs. One statement at a time is enough: it waits for no item, and two made groups of half the size.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import psycopg

from shared.db.curate import CurateCall, Curated, NewBatch
from shared.db.curate_each import curate_each
from shared.db.engine import Database
from shared.errands import Errands
from shared.table import TransitionTable
from shared.workflow import ItemKey, Workflow

SIZE_MAX = 100
"""Calls in one statement: all of them wait for the last."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A call, and who waits for what became of it."""

    call: CurateCall
    answer: asyncio.Future[Curated | None]

    @property
    def key(self) -> ItemKey:
        assert self.call.keys is not None
        return self.call.keys[0]

    @property
    def request_id(self) -> UUID | None:
        return self.call.batch.request_id if isinstance(self.call.batch, NewBatch) else None


class UpdateGroups:
    """The groups of one resource."""

    def __init__(self, *, database: Database, workflow: Workflow, table: TransitionTable, errands: Errands) -> None:
        """What has begun is an errand, since it belongs to several callers: none of them ends it by leaving."""
        self._database, self._workflow, self._table, self._errands = database, workflow, table, errands
        self._waiting: list[_Waiting] = []
        self._is_under_way = False

    async def carry_out(self, call: CurateCall) -> Curated | None:
        """Carries out a call that concerns one item; None when it has to be carried out alone, and nothing was done.

        Raises:
            DatabaseUnavailable: as any other statement; it may have been carried out.
        """
        waiting = _Waiting(call, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if not self._is_under_way:
            self._is_under_way = True
            self._errands.start(self._work)
        return await waiting.answer

    async def _work(self) -> None:
        """Carries out group after group while somebody waits."""
        try:
            while group := self._next_group():
                await self._carry_out_together(group)
        finally:
            self._is_under_way = False

    def _next_group(self) -> Sequence[_Waiting]:
        """Those who wait, in turn; of several with the same item, or the same request_id, the first."""
        group: list[_Waiting] = []
        left: list[_Waiting] = []
        keys, request_ids = set[ItemKey](), set[UUID]()
        for waiting in self._waiting:
            if waiting.answer.done():
                continue  # its caller has gone
            if len(group) == SIZE_MAX or waiting.key in keys or waiting.request_id in request_ids:
                left.append(waiting)
                continue
            group.append(waiting)
            keys.add(waiting.key)
            if waiting.request_id is not None:
                request_ids.add(waiting.request_id)
        self._waiting = left
        return group

    async def _carry_out_together(self, group: Sequence[_Waiting]) -> None:
        answers: Sequence[Curated | None] = [None] * len(group)
        try:
            async with self._database.autocommit(planned_once=True) as connection:
                calls = [waiting.call for waiting in group]
                answers = await curate_each(connection, self._workflow, self._table, calls)
        except psycopg.DatabaseError:
            pass  # Nothing was done. What one of them has caused is its own matter, and not that of the others.
        except Exception as error:  # noqa: BLE001 - as each of them alone would have met it
            for waiting in group:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        for waiting, answer in zip(group, answers, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(answer)
