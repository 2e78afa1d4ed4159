"""A few seconds of what `make chaos` does for minutes: workers, services and PostgreSQL die, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.worker_run import WorkerLoad, run_workers

pytestmark = pytest.mark.untraced


async def test_nothing_is_lost_or_doubled_whatever_dies(postgres_folder: Path) -> None:
    load = WorkerLoad(seconds=6, kills=6, postgres_kills=1, workers=2, items=200)
    outcome = await run_workers(postgres_folder / "workers", load)
    print(outcome.table())  # noqa: T201 - the counts, when somebody asks by -s
    assert not outcome.violations, "\n".join(map(str, outcome.violations[:30]))
    assert outcome.faults.total() > 6
    assert outcome.ledger.kinds["claim"] > 20
