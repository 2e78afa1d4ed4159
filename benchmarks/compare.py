"""Ratios to a floor: what is measured takes turns with its floor in one run, for figures drift from hour to hour."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from benchmarks.report import at_least, table

Measure = Callable[[], Awaitable[float]]
"""Does the work once, and returns the seconds it took, or how much of it was done in a second."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table of results."""

    name: str
    floor: float
    ours: float
    ratio: float
    """At which share of the floor's speed ours is."""
    goal: float


async def interleave(rounds: int, measures: Mapping[str, Measure], *, warm_up: int = 1) -> dict[str, list[float]]:
    """Runs all of them by turns, so many rounds; what the first rounds say to warm up is left out."""
    values: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(-warm_up, rounds):
        for name, measure in measures.items():
            value = await measure()
            if number >= 0:
                values[name].append(value)
    return values


def row_of_seconds(name: str, floor: list[float], ours: list[float], *, goal: float) -> Row:
    """A row of two lists of seconds for the same work, in milliseconds. The ratio is the median of the rounds'."""
    ratio = statistics.median(base / value for base, value in zip(floor, ours, strict=True))
    return Row(name, statistics.median(floor) * 1e3, statistics.median(ours) * 1e3, ratio, goal)


def row_of_rates(name: str, floor: list[float], ours: list[float], *, goal: float) -> Row:
    """A row of two lists of rates, of which more is better."""
    ratio = statistics.median(value / base for base, value in zip(floor, ours, strict=True))
    return Row(name, statistics.median(floor), statistics.median(ours), ratio, goal)


def print_rows(rows: list[Row], *, unit: str) -> None:
    """Prints the rows as a table, and whether they reach their goals."""
    table(
        ("", f"floor, {unit}", f"ours, {unit}", "ratio"),
        ((row.name, f"{row.floor:,.1f}", f"{row.ours:,.1f}", f"{row.ratio:.2f}") for row in rows),
    )
    for row in rows:
        at_least(row.name, row.ratio, row.goal)
