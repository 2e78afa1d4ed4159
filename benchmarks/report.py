"""What a benchmark says: its results in Markdown on stdout, and on stderr what it is doing meanwhile.

`benchmarks.all` puts the results of each into benchmarks/RESULTS.md as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, texts: int = 1) -> None:
    """A table of which so many columns are texts, and the others numbers; values are formatted already."""
    _line(columns)
    _line("---" if number < texts else "---:" for number in range(len(columns)))
    for row in rows:
        _line(row)
    result("")


def at_least(what: str, value: float, goal: float, unit: str = "") -> None:
    """Whether a goal is met that is to be reached."""
    _goal(f"{what}: {value:,.2f}{unit}, goal at least {goal:g}{unit}", is_met=value >= goal)


def at_most(what: str, value: float, goal: float, unit: str = "") -> None:
    """Whether a goal is met that is not to be exceeded."""
    _goal(f"{what}: {value:,.2f}{unit}, goal at most {goal:g}{unit}", is_met=value <= goal)


def result(line: str) -> None:
    """A line of the results."""
    print(line, flush=True)


def doing(line: str) -> None:
    """How far it is, for who waits."""
    print(line, file=sys.stderr, flush=True)


def _goal(told: str, *, is_met: bool) -> None:
    result(f"- {told}: **{'met' if is_met else 'not met'}**")


def _line(cells: Iterable[str]) -> None:
    result(f"| {' | '.join(cells)} |")
