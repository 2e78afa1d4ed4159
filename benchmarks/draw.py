"""Draws curves that come as JSON on standard input into a folder; needs matplotlib and nothing of the project."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt  # type: ignore[import-not-found] # in an environment of its own

Curves = dict[str, list[tuple[float, float]]]


AXES = {
    "throughput": {"x": "items of a batch", "y": "items a second", "xscale": "log", "yscale": "log"},
    "latency": {"x": "ms from COMMIT to client", "y": "% of events", "xscale": "log"},
    "growth": {"x": "rows of the table", "y": "ms", "xscale": "log"},
}


def draw(path: Path, curves: Curves, *, x: str, y: str, **scales: str) -> None:
    """One picture; `scales` are matplotlib's names, for `xscale` and `yscale`."""
    figure, axes = plt.subplots(figsize=(9, 3.8), layout="constrained")
    for name, points in curves.items():
        marker: dict[str, Any] = {"marker": "o"} if len(points) < 50 else {}
        axes.plot(*zip(*points, strict=True), label=name, **marker)
    axes.set(xlabel=x, ylabel=y, **scales)
    axes.set_ylim(bottom=None if "yscale" in scales else 0)
    axes.grid(visible=True, alpha=0.3)
    figure.legend(loc="outside right upper")
    figure.savefig(path, metadata={"Date": None})


def main(folder: Path) -> None:
    """Draws those that there are curves of."""
    folder.mkdir(exist_ok=True)
    plt.rcParams["svg.hashsalt"] = "curation"
    for name, curves in json.load(sys.stdin).items():
        draw(folder / f"{name}.svg", curves, **AXES[name])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
