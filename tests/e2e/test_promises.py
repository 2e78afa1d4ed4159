"""The six promises of the stream, over real processes: two replicas, many watchers of all kinds, and no mercy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.stream_run import Load, run


@pytest.mark.timeout(180)
async def test_every_watcher_is_told_what_was_promised(postgres_folder: Path) -> None:
    outcome = await run(postgres_folder / "streams", Load(seconds=6))
    print(outcome.table(Load(seconds=6)))  # noqa: T201 - the counts, when somebody asks by -s
    assert outcome.violations == []
    assert len(outcome.history.log) > 100
    assert outcome.followed
    assert all(progress.done for progress in outcome.followed)
