"""Every row that is measured, one after another: `python -m benchmarks.all [NAME ...]`. What `make bench` runs.

Each is a program of its own. What it says goes into its section of benchmarks/RESULTS.md; those of others stay as they
are, and one that fails does not keep the others. At the end the pictures are drawn.
"""

from __future__ import annotations

import ast
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.report import doing

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "RESULTS.md"
ROWS = (
    "drain",
    "against_peers",
    "pickup",
    "held_snapshot",
    "million",
    "workers",
    "import_rows",
    "batch_update",
    "single_updates",
    "growth",
    "choices",
    "statements",
    "start",
    "watch_latency",
    "watch_fanout",
    "watch_memory",
    "watch_log",
    "watch_backbone",
)
PICTURES = "pictures"
HEAD = """# Results

What `make bench` measured, each row by a program of its own, against its goal. What stands beside a floor took turns
with it in one run: other machines have other numbers, the ratios stay. Where the time goes, what was tried, and what is
in the way where a goal is not met: [performance](../docs/performance.md), with pictures.
"""


def main(names: list[str]) -> int:
    """Runs them. Returns the exit code: 1 when one failed."""
    sections = dict(read_sections(RESULTS.read_text()))
    failed: list[str] = []
    for name in names or [*ROWS, PICTURES]:
        doing(f"\n{name}")
        load, began_s = os.getloadavg()[0], time.monotonic()
        ran = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}"], check=False, stdout=subprocess.PIPE, text=True
        )
        took_s = time.monotonic() - began_s
        doing(f"{ran.stdout}\n{name}: {took_s:.0f} s")
        if ran.returncode:
            failed.append(name)
        elif name != PICTURES:
            sections[name] = f"{_measured(name)} {_circumstances(load, took_s)}\n\n{ran.stdout.strip()}\n"
            RESULTS.write_text(page(sections))
    if failed:
        doing(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def page(sections: Mapping[str, str]) -> str:
    """The page of results."""
    return "\n".join([HEAD, *(f"## {name}\n\n{sections[name]}" for name in ROWS if name in sections)])


def read_sections(text: str) -> Iterator[tuple[str, str]]:
    """The sections of the page, by name of their program."""
    for section in f"\n{text}".split("\n## ")[1:]:
        name, _, body = section.partition("\n\n")
        yield name, f"{body.strip()}\n"


def _measured(name: str) -> str:
    """What the program says that it measures: the first paragraph of its docstring."""
    told = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text()))
    assert told is not None
    return told.partition("\n\n")[0].replace("\n", " ")


def _circumstances(load: float, took_s: float) -> str:
    where = f"{os.cpu_count()} cores at a load of {load:.1f} before, Python {platform.python_version()}"
    return f"({datetime.now(UTC):%-d %B %Y}; {where}; {took_s:.0f} s.)"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
