"""`curation up --demo` as a user runs it: real processes, and an embedded PostgreSQL in a fresh folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

DEMO_TIMEOUT_S = 170


def demo(folder: Path) -> str:
    """Runs it; gives what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    done = subprocess.run(
        [sys.executable, "-m", "curation_cli.main", "up", "--demo", "--port", "0", "--data", str(folder)],
        capture_output=True,
        text=True,
        timeout=DEMO_TIMEOUT_S,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def number(output: str, row: str) -> int:
    """The number in a summary table's first row of this name."""
    found = re.search(rf"^│ +{row} +│ +(\d+)", output, re.MULTILINE)
    assert found, output
    return int(found[1])


@pytest.mark.timeout(400)
def test_the_demo_enriches_refuses_and_summarizes_and_can_be_run_again() -> None:
    # Not tmp_path: a socket's address has little room.
    with TemporaryDirectory(prefix="curation-") as folder:
        first, second = demo(Path(folder)), demo(Path(folder))
    for output in (first, second):
        queued, completed, failed = (number(output, row) for row in ("queued", "completed", "failed"))
        assert queued >= 1_000
        assert completed + failed == queued
        assert number(output, "found and saved") > number(output, "nothing found") > 0
        assert "ITEMS_REFUSED" in output
        assert "Websites of local businesses" in output
    assert ", 0 of them new" not in first
    assert ", 0 of them new" in second
