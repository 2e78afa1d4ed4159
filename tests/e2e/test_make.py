"""What `make setup` would do, and in which environment: a dry run, for the real one takes a minute."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = dict.fromkeys(("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PYTHONPATH", "PYTHONWARNINGS"), "/elsewhere")


def make(folder: Path, *arguments: str, **environment: str) -> str:
    """What it prints."""
    told = subprocess.run(
        ["make", f"PYTHON={sys.executable}", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What is needed for a dry run, set up to the end."""
    folder = tmp_path / "it's, a checkout"
    folder.mkdir()
    for name in ("Makefile", "requirements-dev.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv").mkdir()
    (folder / ".venv" / ".installed").write_text(f"{folder.resolve()}\n")
    return folder


def test_what_is_set_up_is_left_and_after_a_change_brought_up_to_date(checkout: Path) -> None:
    assert "pip" not in make(checkout, "-n", "setup")
    changed = make(checkout, "-n", "-W", "requirements-dev.lock", "setup")
    assert ("pip install" in changed, "--clear" in changed) == (True, False)


def test_what_was_cut_short_is_made_anew(checkout: Path) -> None:
    (checkout / ".venv" / ".installed").unlink()
    assert "-m venv --clear .venv" in make(checkout, "-n", "setup")


def test_so_is_what_came_with_a_checkout_that_was_moved(checkout: Path) -> None:
    moved = checkout.rename(checkout.with_name("moved"))
    assert "-m venv --clear .venv" in make(moved, "-n", "setup")


def test_packages_are_neither_put_nor_looked_for_elsewhere(checkout: Path) -> None:
    told = make(checkout, "--eval", "show:\n\t@env", "show", PIP_USER="1", PIP_INDEX_URL="https://mirror/", **ELSEWHERE)
    given = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
    assert (given["PIP_USER"], given["PIP_INDEX_URL"]) == ("0", "https://mirror/")
    assert not ELSEWHERE.keys() & given.keys()


@pytest.mark.parametrize(("target", "told"), [("generate", "1"), ("run", "0")])
def test_files_are_utf_8_whatever_the_locale(checkout: Path, target: str, told: str) -> None:
    (checkout / "shows_environment").write_text(f"{target}:\n\t@env\n")
    found = make(checkout, "-f", "Makefile", "-f", "shows_environment", target, PYTHONUTF8="0")
    assert f"PYTHONUTF8={told}\n" in found
