"""Random schedules of what may happen to an item, for as long as chaos lasts; a few of them are in `property`."""

from __future__ import annotations

import time

import pytest

from shared.db.migrate import migrate
from tests.support.barrels import running_bench
from tests.support.schedule import REGISTRY, run_schedules


@pytest.mark.timeout(7_200)
def test_nothing_is_lost_or_doubled_by_any_schedule(
    database_url: str, chaos_s: float, capsys: pytest.CaptureFixture[str]
) -> None:
    migrate(database_url, REGISTRY)
    until_s, examples = time.monotonic() + chaos_s, 0
    with running_bench(database_url) as bench:
        while time.monotonic() < until_s:
            run_schedules(bench, examples=50)
            examples += 50
    with capsys.disabled():
        print(f"\n{examples:,} random schedules of what may happen to an item")  # noqa: T201 - the count
