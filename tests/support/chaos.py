"""`--chaos=SECONDS` and `--soak=SECONDS`: the tests of these folders run for about so long each, or are left out."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
FOLDERS = {TESTS / name: f"--{name}" for name in ("chaos", "soak")}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds both."""
    parser.addoption("--chaos", type=float, default=0.0, help="seconds that each test of tests/chaos makes trouble")
    parser.addoption("--soak", type=float, default=0.0, help="seconds of steady traffic in tests/soak")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves a folder out unless it was asked for."""
    option = FOLDERS.get(collection_path)
    return True if option is not None and not config.getoption(option) else None


@pytest.fixture
def chaos_s(request: pytest.FixtureRequest) -> float:
    """How long to make trouble, in seconds."""
    seconds: float = request.config.getoption("--chaos")
    return seconds


@pytest.fixture
def soak_s(request: pytest.FixtureRequest) -> float:
    """How long to soak, in seconds."""
    seconds: float = request.config.getoption("--soak")
    return seconds
