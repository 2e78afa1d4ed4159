"""Writers of a run: curators over the API, workers and dawdlers at the database; what is acknowledged is written down.

They outlive every fault: a curator repeats its call under its request_id until it is answered, a worker that lost its
connection leaves what it had to the rescue, and a dawdler holds a transaction open while others overtake it.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import count
from typing import Any, TypeVar
from uuid import UUID

import grpc
import grpc.aio
import psycopg

from curation.v1 import curation_pb2 as pb
from curation.v1 import curation_pb2_grpc as pb_grpc
from curation_client.watch import LOST
from shared.db.claim import claim
from shared.db.curate import CurateCall, NewBatch, curate
from shared.db.engine import Connection, connect
from shared.db.finish import Result, finish
from shared.db.log import append_progress
from shared.db.sessions import beat, open_session, rescue
from shared.errors import DatabaseUnavailable
from shared.machine import FAIL, FIND_NOTHING, RELEASE, RETRY, curate_trigger
from shared.table import transition_table
from shared.workflow import Item
from tests.support.history import Event, Write
from tests.support.recorders import CHANNEL, RESOURCE
from workflows.places import workflow

T = TypeVar("T")
TABLE = transition_table(workflow)
STATUSES = ("New", "Selected", "SelectedForDeepScan", "SelectedForDeepScan", "Maintenance", "Archived", "New")
CALL_S = 10.0
EXPIRY_S = 3.0
"""Without a sign of life a worker's items are rescued."""
LIMIT = 8
"""Items of a claim."""
SINGLY = 0.2
"""The share of the sets of items that are set by a call for each."""
DAWDLE_S = (0.02, 0.3)


class Traffic:
    """The writers; `writes` are the acknowledged ones."""

    def __init__(
        self, url: Callable[[], str], ports: Sequence[int], items: Sequence[UUID], *, seed: int, cancels: float = 0.0
    ) -> None:
        """`url` gives the address of the database; `ports` are those of the services.

        `cancels` is the share of the batches that take items away from workers.
        """
        self.writes: list[Write] = []
        self.batches: asyncio.Queue[tuple[int, str]] = asyncio.Queue(maxsize=4)
        """Of batches that queued something, as many as are followed: the id, and the token just behind it."""
        self._url, self._ports, self._items = url, ports, items
        self._dice, self._cancels = random.Random(seed), cancels
        self._steps = count(1)
        self.pace = 1.0
        """So many times as fast as they are told curators go."""
        self.busy = True
        """Whether curators go on; workers finish what there is."""
        self.writers: set[asyncio.Task[Any]] = set()
        """Who has not noticed yet that it is over: one of their changes may still be on its way."""

    async def curator(self, number: int, pause_s: float) -> None:
        """Sets statuses by batches of some size."""
        async with self._channel(number) as channel:
            stub = pb_grpc.CurationServiceStub(channel)
            while self._writing():
                size = self._dice.choice((1, 3, 10, 30))
                status, keys = self._dice.choice(STATUSES), self._dice.sample(self._items, size)
                if self._dice.random() < SINGLY:
                    # At once, as by many users: such calls share statements.
                    await asyncio.gather(*(self.set_status(stub, status, [key]) for key in keys))
                else:
                    await self.set_status(stub, status, keys, cancel_in_flight=self._dice.random() < self._cancels)
                await asyncio.sleep(self._dice.uniform(0, 2 * pause_s) / self.pace)

    async def set_status(
        self, stub: pb_grpc.CurationServiceAsyncStub, status: str, keys: Sequence[UUID], **fields: Any
    ) -> pb.BatchUpdateStatusResponse:
        """One batch, however often it must be asked for."""
        request = pb.BatchUpdateStatusRequest(
            resource=RESOURCE, status=status, ids=pb.ItemIds(ids=map(str, keys)), allow_partial=True,
            request_id=str(uuid.uuid4()), **fields,
        )  # fmt: skip
        began_s = time.monotonic()
        answer = await outliving(lambda: stub.BatchUpdateStatus(request, timeout=CALL_S))
        self._batch(began_s, request.ids.ids, answer)
        return answer

    async def scan_all(self) -> None:
        """Has every item looked at once, in one batch."""
        async with self._channel(0) as channel:
            await self.set_status(pb_grpc.CurationServiceStub(channel), "SelectedForDeepScan", self._items)

    async def retrier(self, pause_s: float) -> None:
        """Gives what has failed another try."""
        async with self._channel(0) as channel:
            stub = pb_grpc.CurationServiceStub(channel)
            while self._writing():
                keys = [str(key) for key in self._dice.sample(self._items, len(self._items) // 2)]
                request = pb.RetryFailedRequest(
                    resource=RESOURCE, ids=pb.ItemIds(ids=keys), allow_partial=True, request_id=str(uuid.uuid4())
                )
                began_s = time.monotonic()
                answer = await outliving(lambda request=request: stub.RetryFailed(request, timeout=CALL_S))  # type: ignore[misc]
                self._batch(began_s, keys, answer)
                await asyncio.sleep(self._dice.uniform(0, 2 * pause_s))

    async def operator(self, pause_s: float) -> None:
        """Pauses, drains and resumes; at the end everything runs."""
        async with self._channel(1) as channel:
            stub = pb_grpc.CurationServiceStub(channel)
            while self.busy:
                await asyncio.sleep(self._dice.uniform(0, 2 * pause_s))
                if self._dice.random() < 0.5:
                    await outliving(lambda: stub.PauseWorkflow(pb.PauseWorkflowRequest(resource=RESOURCE)))
                else:
                    await outliving(lambda: stub.DrainWorkflow(pb.DrainWorkflowRequest(resource=RESOURCE)))
                await asyncio.sleep(self._dice.uniform(0, 0.5))
                await outliving(lambda: stub.ResumeWorkflow(pb.ResumeWorkflowRequest(resource=RESOURCE)))

    async def worker(self, pause_s: float) -> None:
        """Claims, reports, and ends attempts in all ways, for ever."""

        async def work(connection: Connection) -> None:
            while True:
                session = await open_session(connection, host="test", version="1", resources=[RESOURCE])
                while await beat(connection, session, in_flight=0, done=0, failed=0):
                    await self._work(connection, session)
                    await asyncio.sleep(self._dice.uniform(0, 2 * pause_s))

        await self._outliving(work)

    async def dawdler(self, pause_s: float) -> None:
        """Changes an item, leaves its transaction open while others commit, and commits it, or not."""

        async def dawdle(connection: Connection) -> None:
            while self._writing():
                await self._dawdle(connection)
                await asyncio.sleep(self._dice.uniform(0, 2 * pause_s))

        await self._outliving(dawdle)

    async def rescuer(self) -> None:
        """Takes back what lost workers had, for ever."""

        async def look(connection: Connection) -> None:
            while True:
                async with connection.transaction():
                    await rescue(connection, workflow, TABLE)
                await asyncio.sleep(0.3)

        await self._outliving(look)

    async def _outliving(self, work: Callable[[Connection], Awaitable[None]]) -> None:
        """Does it with a connection of its own, and again with another when the database goes away."""
        while True:
            try:
                async with await connect(self._url(), name="traffic") as connection:
                    await work(connection)
                    return
            except (DatabaseUnavailable, psycopg.OperationalError, psycopg.InterfaceError):
                await asyncio.sleep(0.1)

    async def _work(self, connection: Connection, session: int) -> None:
        began_s = time.monotonic()
        async with connection.transaction():
            items = (await claim(connection, workflow, TABLE, session=session, limit=LIMIT)).items
        self._wrote(began_s, [_event(item, 0, "claim") for item in items])
        if not items:
            return
        async with connection.transaction():
            reports = [(item.key, item.version, f"step {next(self._steps)}", 0.5) for item in items]
            await append_progress(connection, workflow, reports)
        await asyncio.sleep(self._dice.uniform(0, 0.02))
        results = [Result(item, self._ending(item), error="scripted", delay_s=0.05) for item in items]
        began_s = time.monotonic()
        async with connection.transaction():
            finished = await finish(connection, workflow, TABLE, results)
        if finished.saved == len(results):
            self._wrote(began_s, [_event(result.item, 1, result.trigger) for result in results])

    async def _dawdle(self, connection: Connection) -> None:
        key, began_s, kept = self._dice.choice(self._items), time.monotonic(), self._dice.random() < 0.8
        look = "SELECT status, version FROM places_staging WHERE id = %s FOR NO KEY UPDATE"
        async with connection.transaction(force_rollback=not kept):
            row = await (await connection.execute(look, [key])).fetchone()
            assert row is not None
            status = self._dice.choice([each for each in STATUSES if each != row[0]])
            call = CurateCall(trigger=curate_trigger(status), keys=[key], batch=NewBatch(status=status))
            curated = await curate(connection, workflow, TABLE, call)
            await asyncio.sleep(self._dice.uniform(*DAWDLE_S))
        if kept and curated.position is not None:
            self._wrote(began_s, [Event(str(key), row[1] + 1, "curate")])

    def _writing(self) -> bool:
        """Whether the task that asks goes on; it is among the writers for as long as it does."""
        task = asyncio.current_task()
        assert task is not None
        if self.busy:
            self.writers.add(task)
        else:
            self.writers.discard(task)
        return self.busy

    def _channel(self, number: int) -> grpc.aio.Channel:
        port = self._ports[number % len(self._ports)]
        return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL)

    def _batch(
        self, began_s: float, keys: Iterable[str], answer: pb.BatchUpdateStatusResponse | pb.RetryFailedResponse
    ) -> None:
        """A batch was acknowledged."""
        if answer.batch.changed_count:
            changed = frozenset(keys) - {outcome.item_id for outcome in answer.outcomes}
            cause = int(answer.batch.batch_id)
            self.writes.append(Write(began_s, time.monotonic(), cause=cause, items=changed))
            if answer.batch.queued_count and not self.batches.full():
                self.batches.put_nowait((cause, answer.resume_token))

    def _ending(self, item: Item) -> str:
        return self._dice.choice((FIND_NOTHING, FIND_NOTHING, FAIL, RETRY if item.attempt < 3 else FAIL, RELEASE))

    def _wrote(self, began_s: float, events: Sequence[Event]) -> None:
        if events:
            self.writes.append(Write(began_s, time.monotonic(), frozenset(events)))


async def outliving(call: Callable[[], Awaitable[T]]) -> T:
    """What a call answers, however often it must be made; it is made again under its request_id where it has one."""
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if error.code() not in LOST:
                raise
            await asyncio.sleep(0.05)


def _event(item: Item, more: int, kind: str) -> Event:
    return Event(str(item.key), item.version + more, kind)
