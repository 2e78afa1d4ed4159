"""The page of results: a benchmark that is measured anew changes its own section and no other."""

from __future__ import annotations

from benchmarks.all import RESULTS, ROWS, page, read_sections


def test_sections_are_read_as_they_were_written() -> None:
    sections = {"drain": "One.\n\n| a |\n| --- |\n", "start": "Two.\n"}
    assert dict(read_sections(page(sections))) == sections


def test_sections_stand_in_order_whatever_was_measured_first() -> None:
    assert [name for name, _ in read_sections(page({"start": "Two.\n", "drain": "One.\n"}))] == ["drain", "start"]


def test_every_benchmark_has_its_results() -> None:
    assert [name for name, _ in read_sections(RESULTS.read_text())] == list(ROWS)
