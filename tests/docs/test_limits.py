"""The page on limits is run: its declaration, its enricher, and every number that it names is there."""

from __future__ import annotations

import asyncio
import importlib
import re
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import pytest

from shared.metrics import MetricsServer
from tests.docs.pages import ROOT, blocks
from tests.support.worker import World, world  # noqa: F401 - a fixture

PAGE = ROOT / "docs" / "guide" / "limits.md"


async def test_gadgets_are_enriched_within_the_limits_of_the_page(
    world: World,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for block in blocks(PAGE, "python"):
        path = tmp_path / block.title
        path.parent.mkdir(exist_ok=True)
        path.write_text(block.text)
    monkeypatch.syspath_prepend(tmp_path)
    limits = importlib.import_module("guest").limits
    world.workflow = replace(world.workflow, limits=limits, enricher="guest.enricher:enrich")
    await world.queue("tenant-1", "tenant-2", "other-1")
    async with world.worker(metrics_listen="127.0.0.1:0") as worker:
        rows = await world.ended(worker)
        (server,) = [part for part in worker.parts if isinstance(part, MetricsServer)]
        with await asyncio.to_thread(urlopen, f"http://127.0.0.1:{server.port}/metrics") as response:
            told = response.read().decode()
    assert {row["lookup_status"] for row in rows} == {"completed"}
    named = re.findall(r"^\| `(curation_\w+)` \|", PAGE.read_text(), flags=re.MULTILINE)
    assert len(named) == 5
    assert [name for name in named if f"\n{name}{{" not in told] == []
