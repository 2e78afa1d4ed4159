"""The pages that are generated say what the machine and the writer do today."""

from __future__ import annotations

from shared.db.shown import statements_page
from shared.diagram import RESOURCE, lifecycle_page
from shared.registry import load_registry
from tests.docs.pages import ROOT

FOLDER = ROOT / "docs" / "reference"


def test_the_page_on_the_lifecycle_is_what_the_machine_says() -> None:
    page = FOLDER / "lifecycle.md"
    assert page.read_text() == lifecycle_page(load_registry()[RESOURCE]), "out of date: make generate"


def test_the_page_on_the_hot_statements_is_what_the_writer_composes() -> None:
    page = FOLDER / "statements.md"
    assert page.read_text() == statements_page(load_registry()[RESOURCE]), "out of date: make generate"
