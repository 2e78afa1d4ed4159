"""The page on faults names tests and settings that there are, and what the programs really log and count."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "operate" / "faults.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| fault", "| ---"))]
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
PROGRAMS = "\n".join(
    path.read_text()
    for folder in ("curation_service", "enrichment_worker", "shared")
    for path in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("row", ROWS, ids=[row.split(" | ")[0].strip("| ") for row in ROWS])
def test_each_fault_is_caused_by_a_test(row: str) -> None:
    (name,) = re.findall(r"`(test_\w+)` \|$", row)
    assert re.search(rf"def {name}\(", TESTS)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([^`]*)`", PAGE)) - set(re.findall(r"`(test_\w+)`", PAGE))))
def test_what_is_quoted_is_what_programs_say(name: str) -> None:
    for part in re.split(r"\s*\.\.\.\s*|^\*+$", name):
        known = part.removeprefix("CURATION_").lower() if part.startswith("CURATION_") else part
        counted = re.sub(r"^curation_items_(\w+?)_total$", r"\1", known)
        assert counted in PROGRAMS or known in TESTS, part
