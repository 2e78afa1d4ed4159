"""Which event loop a worker runs on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

import pytest

from enrichment_worker.__main__ import run
from enrichment_worker.settings import WorkerSettings


@pytest.fixture
def loop_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """Starts a worker that does nothing; gives the library whose loop it runs on."""
    libraries: list[str] = []

    async def run_worker(*_: object) -> None:
        libraries.append(type(asyncio.get_running_loop()).__module__.partition(".")[0])

    monkeypatch.setattr("enrichment_worker.__main__.run_worker", run_worker)

    def start() -> str:
        run(WorkerSettings(database_url="postgresql://nowhere/curation"))
        return libraries.pop()

    return start


def test_a_worker_runs_on_uvloop_where_it_is_installed_and_on_asyncio_where_not(
    loop_of: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert loop_of() == "uvloop"
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert loop_of() == "asyncio"
