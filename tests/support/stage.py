"""What must hold whatever happens to a few items: the log is replayed, and the rows are held against it.

No rule of the lifecycle is written here a second time. `schedule` says what may happen.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import TypeVar

from hypothesis.stateful import RuleBasedStateMachine, invariant

from curation_service.batch_request import BatchUpdate
from curation_service.batch_update import BatchAnswer, BatchUpdates
from curation_service.update_groups import UpdateGroups
from shared.db.engine import Connection
from shared.db.finish import Result, finish
from shared.db.log import newest_position
from shared.db.sessions import rescue
from shared.errands import Errands
from shared.errors import ItemsRefused
from shared.machine import PROCESSING, QUEUED
from shared.workflow import Item
from tests.support.audit import audit, follow
from tests.support.barrels import (
    BARRELS,
    CROWD,
    CURATION,
    TABLE,
    Bench,
    Crashable,
    contents,
    only_new_barrels,
)
from tests.support.ledger import Ledger

T = TypeVar("T")


class Stage(RuleBasedStateMachine):
    """A few items and workers, and users' way to them."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self._bench = bench
        self._ledger = Ledger(CURATION.initial, attempts_max=BARRELS.limits.attempts_max)
        groups = UpdateGroups(database=bench.database, workflow=BARRELS, table=TABLE, errands=Errands(at_once=1))
        self._updates = BatchUpdates(
            database=bench.database,
            tables={BARRELS.resource: TABLE},
            groups={BARRELS.resource: groups},
            items_max=100,
            outcomes_max=100,
        )
        self._late: list[Item] = []
        """What crashed workers had in hand, and may still bring."""
        self._saved: list[Result] = []
        """What was brought last."""
        self._asked: list[tuple[BatchUpdate, BatchAnswer]] = []
        self._workers: list[Crashable] = []
        self._is_paused = False
        self._keys = self._run(self._begin)

    @invariant()
    def the_rows_are_what_the_log_says(self) -> None:
        """Status, versions, attempts, batches and their counters; saved is what was completed since, no more."""
        wrong, found = self._run(self._audit)
        assert not wrong, "\n".join(wrong)
        saved = {int(item): account.saved for item, account in self._ledger.accounts.items()}
        expected = {key: version for key, version in saved.items() if version is not None}
        assert found == expected, f"saved {found}, and {expected} by the log"

    @invariant()
    def who_lives_knows_what_it_has(self) -> None:
        """Or an item would be stuck with a worker that will never work on it."""
        for one in self._workers:
            has = {
                (int(item), account.version)
                for item, account in self._ledger.accounts.items()
                if account.worker == one.session
            }
            assert one.in_doubt or has <= one.lane.held.keys(), (
                f"session {one.session} has {has}, and knows {one.lane.held}"
            )

    # For the steps.

    @property
    def _queued_count(self) -> int:
        return sum(account.queue_status == QUEUED for account in self._ledger.accounts.values())

    async def _begin(self, connection: Connection) -> list[int]:
        self._ledger.position = await newest_position(connection)
        self._workers = [await Crashable.start(connection) for _ in range(CROWD)]
        return await only_new_barrels(connection)

    def _curate(self, command: BatchUpdate) -> None:
        with suppress(ItemsRefused):
            answer = self._bench.runner.run(self._updates.carry_out(command))
            if not command.validate_only:
                self._asked.append((command, answer))

    def _bring(self, results: Sequence[Result]) -> None:
        """Saved is what is still held under its version; all else is dropped."""
        accounts = [(self._ledger.accounts[str(each.item.key)], each.item.version) for each in results]
        due = sum(a.version == version and a.queue_status == PROCESSING for a, version in accounts)
        finished = self._run(lambda connection: finish(connection, BARRELS, TABLE, results))
        assert (finished.saved, finished.dropped) == (due, len(results) - due), f"{finished}, and {due} were due"
        self._saved = list(results)

    async def _claim_at_once(self, limit: int) -> list[Sequence[Item]]:
        async with AsyncExitStack() as stack:
            for connection in self._bench.connections:
                await stack.enter_async_context(connection.transaction())
            pairs = zip(self._workers, self._bench.connections, strict=True)
            return [await one.claim(connection, limit) for one, connection in pairs]

    async def _audit(self, connection: Connection) -> tuple[list[str], Mapping[int, int]]:
        return await audit(connection, BARRELS, self._ledger), await contents(connection, self._keys)

    async def _rescue(self, connection: Connection) -> None:
        """All that the dead have, and nothing of the living."""
        await follow(connection, BARRELS, self._ledger)
        living = {one.session for one in self._workers if not one.is_silent}
        accounts = self._ledger.accounts.values()
        due = sum(account.queue_status == PROCESSING and account.worker not in living for account in accounts)
        rescued = await rescue(connection, BARRELS, TABLE)
        assert rescued == due, f"{rescued} were rescued, and {due} were due"

    def _run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        return self._bench.runner.run(self._commit(work))

    async def _commit(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        connection = self._bench.connections[0]
        async with connection.transaction():
            return await work(connection)
