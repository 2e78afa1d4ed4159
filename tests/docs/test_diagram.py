"""The page on the lifecycle says what the machine does today."""

from __future__ import annotations

from pathlib import Path

from shared.diagram import RESOURCE, lifecycle_page
from shared.registry import load_registry

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/lifecycle.md"


def test_the_page_on_the_lifecycle_is_what_the_machine_says() -> None:
    assert PAGE.read_text() == lifecycle_page(load_registry()[RESOURCE]), "out of date: make generate"
