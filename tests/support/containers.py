"""`--compose=COMMAND`: the test of `tests/containers` builds the images and runs them; without it, it is left out."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "containers"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--compose`."""
    parser.addoption("--compose", default="", help="how compose is called here, e.g. 'docker compose'")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves the folder out unless it was asked for."""
    return True if collection_path == FOLDER and not config.getoption("--compose") else None
