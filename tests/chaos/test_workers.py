"""Workers killed, stopped, frozen and cut off all the time, and everything around them: nothing is lost or doubled."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.worker_run import WorkerLoad, run_workers

KILLS_PER_S = 200 / 180
POSTGRES_KILLS_PER_S = 20 / 180


@pytest.mark.timeout(7_200)
async def test_nothing_is_lost_or_doubled_whatever_dies(
    postgres_folder: Path, chaos_s: float, capsys: pytest.CaptureFixture[str]
) -> None:
    load = WorkerLoad(
        seconds=chaos_s, kills=round(chaos_s * KILLS_PER_S), postgres_kills=round(chaos_s * POSTGRES_KILLS_PER_S)
    )
    outcome = await run_workers(postgres_folder / "workers", load)
    with capsys.disabled():
        print(f"\n{outcome.table()}")  # noqa: T201 - the counts are what it is run for
    assert not outcome.violations, "\n".join(map(str, outcome.violations[:30]))
    assert outcome.faults["worker killed (-9)"] >= load.kills
    assert outcome.faults["PostgreSQL killed (-9)"] >= load.postgres_kills
