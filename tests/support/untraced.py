"""Tests marked `untraced` run as fast as without coverage: what they run, others run too, who are measured.

Tracing takes as much processor time as what it traces, in the processes that a test starts as well.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping

import pytest
from coverage import Coverage


def untraced(environment: Mapping[str, str]) -> dict[str, str]:
    """The same for a process that is not measured."""
    return {name: value for name, value in environment.items() if not name.startswith("COVERAGE_")}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Stops measuring for as long as such a test, its set-up included, takes."""
    measuring = Coverage.current()
    if measuring is None or item.get_closest_marker("untraced") is None:
        return (yield)
    measuring.stop()
    before = {name: os.environ.pop(name) for name in os.environ.keys() - untraced(os.environ).keys()}
    try:
        return (yield)
    finally:
        os.environ.update(before)
        measuring.start()
