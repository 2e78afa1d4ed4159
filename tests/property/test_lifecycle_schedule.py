"""Whatever happens to items, in whatever order: rows, target and batches are as the log says, and nothing is stuck."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shared.db.migrate import migrate
from tests.support.barrels import Bench, running_bench
from tests.support.schedule import REGISTRY, run_schedules

pytestmark = pytest.mark.untraced

EXAMPLES = 25


@pytest.fixture
def bench(database_url: str) -> Iterator[Bench]:
    """The tables of barrels."""
    migrate(database_url, REGISTRY)
    with running_bench(database_url) as running:
        yield running


def test_nothing_is_lost_or_doubled_by_any_schedule(bench: Bench) -> None:
    run_schedules(bench, examples=EXAMPLES)
