"""The promises of the streams while services and PostgreSQL are killed, and connections cut, stalled and refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.stream_run import Load, run


@pytest.mark.timeout(3_600)
async def test_no_promise_is_broken_whatever_dies(
    postgres_folder: Path, chaos_s: float, capsys: pytest.CaptureFixture[str]
) -> None:
    load = Load(seconds=chaos_s, copies=2, fault_pause_s=3.0)
    outcome = await run(postgres_folder / "streams", load)
    with capsys.disabled():
        print(f"\n{outcome.table(load)}")  # noqa: T201 - the counts are what it is run for
    assert outcome.violations == []
    assert outcome.faults
    assert outcome.followed
    assert all(progress.done for progress in outcome.followed)
