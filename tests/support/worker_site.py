"""Worker processes for `gadgets` on the database and the API of a test, which stops, freezes and kills them."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from curation_cli.processes import Child
from tests.support.eventually import eventually_async
from tests.support.ports import free_port
from tests.support.worker import World

ROOT = Path(__file__).resolve().parents[2]


class WorkerProcess:
    """One worker."""

    def __init__(self, child: Child, metrics: str) -> None:
        self.child, self._metrics = child, metrics

    @property
    def log(self) -> str:
        """What it has logged."""
        return self.child.log.read_text()

    def send(self, number: signal.Signals) -> None:
        """A signal."""
        os.kill(self.child.pid, number)

    async def stop(self) -> None:
        """Ends it, frozen or not."""
        if self.child.exit_code is None:
            self.send(signal.SIGCONT)
        await self.child.stop()

    async def ended(self) -> int:
        """Waits for its end; gives its exit code."""
        await self.child.ended()
        assert self.child.exit_code is not None
        return self.child.exit_code

    async def metrics(self) -> str:
        """All its numbers."""
        async with httpx.AsyncClient(trust_env=False) as http:
            return (await http.get(f"http://{self._metrics}/metrics")).text

    async def metric(self, name: str) -> float:
        """One of the gadgets' numbers."""
        (line,) = [x for x in (await self.metrics()).splitlines() if x.startswith(f'{name}{{resource="gadgets"}}')]
        return float(line.rpartition(" ")[2])


class WorkerSite:
    """Starts workers; entered by the fixture `workers`."""

    def __init__(self, world: World, folder: Path, stack: AsyncExitStack) -> None:
        self.world, self._folder, self._stack, self._count = world, folder, stack, 0
        metadata = folder / "gadgets-1.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: gadgets\nVersion: 1\n")
        points = "[curation.workflows]\ngadgets = tests.support.misbehaving:workflow\n"
        (metadata / "entry_points.txt").write_text(points)

    async def start(self, **environment: str) -> WorkerProcess:
        """A worker that is ready; `environment` beside what every worker here gets."""
        self._count += 1
        metrics = f"127.0.0.1:{free_port()}"
        child = Child(
            "enrichment_worker",
            environment={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(self._folder), str(ROOT)]),
                "DATABASE_URL": self.world.url,
                "API_URL": self.world.api_url,
                "CURATION_RESOURCES": "gadgets",
                "CURATION_METRICS_LISTEN": metrics,
                "CURATION_POLL_S": "0.1",
                "CURATION_BEAT_S": "0.2",
                "CURATION_EXPIRY_S": "2",
                **environment,
            },
            log=self._folder / f"worker-{self._count}.log",
            ready="ready,",
        )
        await child.__aenter__()
        worker = WorkerProcess(child, metrics)
        self._stack.push_async_callback(worker.stop)
        return worker

    async def until(self, **counts: int) -> list[dict[str, Any]]:
        """Waits until so many gadgets have each of these queue statuses; gives all of them."""
        rows: list[dict[str, Any]] = []

        async def reached() -> bool:
            rows[:] = await self.world.gadgets()
            found = [row["lookup_status"] for row in rows]
            return all(found.count(status) == count for status, count in counts.items())

        await eventually_async(reached)
        return rows


@pytest.fixture
async def workers(world: World, tmp_path: Path) -> AsyncIterator[WorkerSite]:
    """Gadgets, their API, and no worker yet."""
    async with AsyncExitStack() as stack:
        yield WorkerSite(world, tmp_path, stack)
