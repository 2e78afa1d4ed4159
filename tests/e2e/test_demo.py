"""`curation up --demo` as a user runs it: real processes, and an embedded PostgreSQL in a fresh folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from curation_cli.arguments import parser
from tests.support.postgres import short_folder
from tests.support.untraced import untraced

DEMO_TIMEOUT_S = 170
ELSEWHERE = {"http_proxy": "http://127.0.0.1:1", "PGSSLMODE": "require", "PGSERVICE": "theirs", "PGDATESTYLE": "German"}
"""What says how others are reached, and what they are like."""


def demo(folder: Path, environment: Mapping[str, str]) -> str:
    """Runs it; gives what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "curation_cli.main", "up", "--demo", "--port", "0", "--data", str(folder)],
        capture_output=True,
        text=True,
        timeout=DEMO_TIMEOUT_S,
        env={name: value for name, value in environment.items() if name != "DATABASE_URL"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def numbers(output: str, row: str) -> tuple[int, int]:
    """The numbers in the rows of this name: of the places' summary, and of the websites'."""
    places, websites = re.findall(rf"^│ +{row} +│ +(\d+)", output, re.MULTILINE)
    return int(places), int(websites)


@pytest.mark.timeout(400)
def test_the_demo_enriches_refuses_and_summarizes_and_can_be_run_again() -> None:
    with short_folder() as folder:
        first, second = demo(folder, os.environ), demo(folder, {**untraced(os.environ), **ELSEWHERE})
        again = parser().parse_args(shlex.split(second.rsplit("Start it to stay with: ", 1)[1])[1:])
    assert (again.command, again.demo, again.data, again.port) == ("up", False, folder, 0)
    for output in (first, second):
        queued, completed, failed, found, nothing = (
            numbers(output, row) for row in ("queued", "completed", "failed", "found and saved", "nothing found")
        )
        assert queued == (1_500, 50)
        assert (completed[0] + failed[0], completed[1] + failed[1]) == queued
        assert found[0] > 1_000
        assert nothing[0] > 0
        assert failed[0] > 0
        assert found[1] == 50
        assert "ITEMS_REFUSED" in output
    assert ", 0 of them new" not in first
    assert ", 0 of them new" in second
