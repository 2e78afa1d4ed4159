"""A random schedule of all that may happen to a few items, against the real database, as Hypothesis draws it.

Users go through the use case of the service, workers through the statements of the real one. Workers crash with items
in hand, come back late, and do not learn that a claim was committed. `stage` says what must hold after each step.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from curation.v1 import curation_pb2 as pb
from curation_service.batch_request import read_batch_update
from curation_service.failures import read_retry_failed
from shared.db.engine import Connection
from shared.db.finish import finish
from shared.db.log import append_progress
from shared.db.workflow_states import pause, resume
from shared.errors import UnknownFailureGroup
from shared.machine import COMPLETE, COMPLETED, FAIL, FAILED, FIND_NOTHING, NONE, RELEASE, RETRY
from shared.registry import Registry
from shared.workflow import Item
from tests.support.barrels import (
    BARRELS,
    COUNT,
    CROWD,
    CURATION,
    TABLE,
    Bench,
    Crashable,
    result,
)
from tests.support.stage import Stage

REGISTRY = Registry(BARRELS)
STEPS = 30
"""Of a schedule."""
OFTEN, SELDOM = st.sampled_from([True, True, True, False]), st.sampled_from([False, False, False, True])
ITEMS = st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=COUNT, unique=True)
WORKERS = st.integers(0, CROWD - 1)
ENDS = st.sampled_from([COMPLETE, COMPLETE, FIND_NOTHING, RETRY, RETRY, FAIL, RELEASE])


class Schedule(Stage):
    """The steps."""

    # Users.

    @rule(
        which=ITEMS, status=st.sampled_from(CURATION.statuses), by_filter=SELDOM, allow_partial=OFTEN,
        validate_only=SELDOM, cancel_in_flight=st.booleans(), stale=SELDOM,
    )  # fmt: skip
    def set_status(self, which: Sequence[int], *, by_filter: bool, stale: bool, **call: Any) -> None:
        """A batch update, in all its ways."""
        request = pb.BatchUpdateStatusRequest(resource=BARRELS.resource, request_id=str(uuid.uuid4()), **call)
        keys = [self._keys[n] for n in which]
        if by_filter:
            request.filter = " OR ".join(f"id = {key}" for key in keys)
        for key in () if by_filter else keys:
            version = self._ledger.accounts[str(key)].version + stale
            request.items.entries.add(id=str(key), expected_version=version)
        self._curate(read_batch_update(request, REGISTRY, items_max=100))

    @rule(which=ITEMS, allow_partial=OFTEN, by_group=st.booleans())
    def retry_failed(self, which: Sequence[int], *, by_group: bool, allow_partial: bool) -> None:
        """By key, or all that failed alike."""
        request = pb.RetryFailedRequest(
            resource=BARRELS.resource, request_id=str(uuid.uuid4()), allow_partial=allow_partial
        )
        if by_group:
            failure = result(Item(1, 1, 1, {}), FAIL).failure
            assert failure is not None
            request.failure_group_id = str(failure.group(BARRELS.resource))
        else:
            request.ids.ids.extend(str(self._keys[n]) for n in which)
        with suppress(UnknownFailureGroup):
            self._curate(read_retry_failed(request, REGISTRY, items_max=100))

    @precondition(lambda self: self._asked)
    @rule()
    def ask_again(self) -> None:
        """The last call under its request_id: nothing happens twice, and it gets the same answer."""
        command, answer = self._asked[-1]
        again = self._bench.runner.run(self._updates.carry_out(command))
        assert again.replayed
        assert again.batch == answer.batch

    @rule(drain=st.booleans(), stays=SELDOM)
    def pause(self, *, drain: bool, stays: bool) -> None:
        """Nobody claims any more, for a moment or until somebody resumes."""
        self._run(lambda connection: pause(connection, BARRELS.resource, by="", reason="", drain=drain))
        self._is_paused = True
        self.claim_at_once(COUNT)
        if not stays:
            self.resume()

    @precondition(lambda self: self._is_paused)
    @rule()
    def resume(self) -> None:
        """Everybody may claim again."""
        self._run(lambda connection: resume(connection, BARRELS.resource, by="", reason=""))
        self._is_paused = False

    # Workers.

    @rule(worker=WORKERS, limit=st.integers(1, COUNT), heard=st.booleans())
    def claim(self, worker: int, limit: int, *, heard: bool) -> None:
        """A worker asks for items, of which there are some; or it does, and the answer is lost."""
        if self._queued_count == 0:
            self.set_status(range(COUNT), by_filter=False, stale=False, status="Scan", allow_partial=True)
        one = self._workers[worker]
        items = self._run(lambda connection: one.claim(connection, limit, heard=heard))
        assert not (items and self._is_paused), f"{items} were claimed of what is paused"

    @rule(limit=st.integers(1, COUNT))
    def claim_at_once(self, limit: int) -> None:
        """All workers, each before any other has committed: none gets what another gets, and none waits."""
        claimed = [item.key for items in self._bench.runner.run(self._claim_at_once(limit)) for item in items]
        assert len(claimed) == len(set(claimed)), f"{claimed} were claimed at once"
        assert not (claimed and self._is_paused), f"{claimed} were claimed of what is paused"

    @precondition(lambda self: any(one.held for one in self._workers))
    @rule(worker=WORKERS, ends=st.lists(st.tuples(st.integers(0, COUNT), ENDS), min_size=1), later=SELDOM)
    def finish(self, worker: int, ends: Sequence[tuple[int, str]], *, later: bool) -> None:
        """Attempts end."""
        one = self._workers[worker]
        self._bring([one.result(index, trigger, later=later) for index, trigger in ends if one.held])

    @precondition(lambda self: self._saved)
    @rule()
    def bring_again(self) -> None:
        """Results whose commit was not heard of are brought once more: all of them lose."""
        finished = self._run(lambda connection: finish(connection, BARRELS, TABLE, self._saved))
        assert finished.saved == 0

    @precondition(lambda self: self._late)
    @rule(index=st.integers(0, 10), trigger=ENDS)
    def come_late(self, index: int, trigger: str) -> None:
        """A worker that was taken for dead, or soon will be, brings what it had."""
        self._bring([result(self._late.pop(index % len(self._late)), trigger)])

    @precondition(lambda self: any(one.held for one in self._workers))
    @rule(worker=WORKERS)
    def report(self, worker: int) -> None:
        """Progress of what it believes to hold."""
        reports = [(item.key, item.version, "step", 0.5) for item in self._workers[worker].held]
        self._run(lambda connection: append_progress(connection, BARRELS, reports))

    @rule()
    def wait(self) -> None:
        """Whatever waits for its next attempt has waited long enough."""
        self._run(_let_time_pass)

    @rule(worker=WORKERS, missed=OFTEN, again=st.booleans())
    def crash(self, worker: int, *, missed: bool, again: bool) -> None:
        """A worker is gone with what it had in hand, and missed soon or later. Another one takes its place."""
        one = self._workers[worker]
        self._late += one.held
        self._run(one.fall_silent)
        if missed:
            self._run(self._rescue)
            assert not self._run(one.beat), "who was taken for dead must not go on"
        self._workers[worker] = self._run(Crashable.start)
        if again:
            self.wait()
            self.claim(worker, COUNT, heard=True)

    @rule()
    def rescue(self) -> None:
        """Somebody looks after the dead."""
        self._run(self._rescue)

    @rule(worker=WORKERS)
    def drain(self, worker: int) -> None:
        """A worker ends in order, and another one comes."""
        self._run(self._workers[worker].drain)
        self._workers[worker] = self._run(Crashable.start)

    def teardown(self) -> None:
        """Whatever happened, one worker brings everything to an end: nothing is stuck."""
        if self._is_paused:
            self.resume()
        for number in range(CROWD):
            self.crash(number, missed=True, again=False)
        last = self._workers[0]
        self.the_rows_are_what_the_log_says()
        while self._queued_count:
            self._run(_let_time_pass)
            self._run(lambda connection: last.claim(connection, COUNT))
            self.the_rows_are_what_the_log_says()
            self._bring([last.result(0, COMPLETE, later=False) for _ in list(last.held)])
            self.the_rows_are_what_the_log_says()
        ends = {account.queue_status for account in self._ledger.accounts.values()}
        assert ends <= {NONE, COMPLETED, FAILED}, f"something is stuck: {ends}"


async def _let_time_pass(connection: Connection) -> None:
    # Each at a time of its own: which of several items is claimed first must not depend on where their rows lie.
    past = "'epoch'::timestamptz + make_interval(secs => id)"
    await connection.execute(f"UPDATE barrels SET check_run_at = {past} WHERE check_run_at IS NOT NULL")


def run_schedules(bench: Bench, *, examples: int) -> None:
    """Draws so many schedules; raises with the shortest one that breaks something."""

    class Here(Schedule):
        def __init__(self) -> None:
            super().__init__(bench)

    # The database is the same in all; each begins by emptying it.
    chosen = settings(max_examples=examples, stateful_step_count=STEPS, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Here, settings=chosen)
