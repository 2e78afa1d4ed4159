"""`--chaos=SECONDS`: the tests of `tests/chaos` run for about so long each; without it they are left out."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "chaos"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--chaos`."""
    parser.addoption("--chaos", type=float, default=0.0, help="seconds that each test of tests/chaos makes trouble")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves the folder out unless it was asked for."""
    return True if collection_path == FOLDER and not config.getoption("--chaos") else None


@pytest.fixture
def chaos_s(request: pytest.FixtureRequest) -> float:
    """How long to make trouble, in seconds."""
    seconds: float = request.config.getoption("--chaos")
    return seconds
