"""A worker as it is deployed: a process of its own, workflow by entry point, settings from the environment."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from benchmarks.bed import cpu_s

START_S = 30.0
"""Until it is ready."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that runs."""

    pid: int

    @property
    def memory_peak_bytes(self) -> int:
        """The most that it held in memory so far."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    @property
    def cpu_s(self) -> float:
        """Seconds that a core worked for it so far."""
        return cpu_s(self.pid)


@asynccontextmanager
async def worker(url: str, workflow: str = "at_once", **settings: str) -> AsyncIterator[Worker]:
    """A worker that is ready; `workflow` is one of `benchmarks.samples`, `settings` are for its environment."""
    with TemporaryDirectory(prefix="curation-") as folder:
        _declare(Path(folder), workflow)
        path = os.pathsep.join([folder, str(Path(__file__).parents[1])])
        environment = {
            **os.environ,
            "DATABASE_URL": url,
            "PYTHONPATH": path,
            "CURATION_RESOURCES": "samples",
            **settings,
        }
        log = Path(folder) / "worker.log"
        with log.open("wb") as written:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "enrichment_worker", env=environment, stderr=written
            )
        try:
            async with asyncio.timeout(START_S):
                while "worker ready" not in _text(log):
                    if process.returncode is not None:
                        raise RuntimeError(f"the worker did not start:\n{_text(log)}")
                    await asyncio.sleep(0.02)
            yield Worker(process.pid)
            if process.returncode is not None:
                raise RuntimeError(f"the worker ended:\n{_text(log)}")
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def pause(url: str, *, paused: bool) -> float:
    """Lets nobody claim, or lets them claim. Returns the database's time of the commit, in seconds."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute(
            """INSERT INTO workflow_state (resource, paused_at) VALUES ('samples', now())
               ON CONFLICT (resource) DO UPDATE SET paused_at = CASE WHEN %s THEN now() END""",
            [paused],
        )
        await connection.execute("NOTIFY curation, 'samples'")
        row = await (await connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8")).fetchone()
        assert row is not None
        return float(row[0])


def _declare(folder: Path, workflow: str) -> None:
    metadata = folder / "benchmarked-1.dist-info"
    metadata.mkdir()
    metadata.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: benchmarked\nVersion: 1\n")
    metadata.joinpath("entry_points.txt").write_text(f"[curation.workflows]\nsamples = benchmarks.samples:{workflow}\n")


def _text(log: Path) -> str:
    return log.read_text()
