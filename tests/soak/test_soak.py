"""Steady traffic leaves nothing behind but what is to be kept: memory flat, tables as large as their rows need."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.soak_run import SoakLoad, soak

GROWN = 0.05
"""Of what a process held in the middle of the run, at its end."""
GROWING = frozenset({"status_event", "status_batch", "batch_outcome"})
"""Kept for as long as history is; what the target has, it has after a while."""
GROWTH = 1.25
"""From the middle of a run to its end, of all other tables and their indexes."""
BLOAT = 4.0
"""Times the size of the rows, of tables larger than this many bytes."""
SMALL_BYTES = 256 * 1024


@pytest.mark.timeout(24 * 3_600)
async def test_steady_traffic_leaves_memory_flat_and_tables_small(
    postgres_folder: Path, soak_s: float, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = await soak(postgres_folder / "soak", SoakLoad(seconds=soak_s))
    with capsys.disabled():
        print(f"\n{outcome.table()}\n\nbytes a second: {outcome.held.growth()}")  # noqa: T201 - what it is run for
    assert not outcome.unasked
    samples = [sizes for _, sizes in outcome.held.samples]
    for name, middle, end in zip(outcome.names, samples[len(samples) // 2], samples[-1], strict=True):
        assert end < middle * (1 + GROWN), f"{name} grows"
    last = outcome.sizes.samples[-1][1]
    for name, size in last.items():
        if size.table > SMALL_BYTES and name not in GROWING:
            assert outcome.sizes.growth(name) < GROWTH, f"{name} grows"
            assert size.bloat < BLOAT, f"{name} is bloated"
