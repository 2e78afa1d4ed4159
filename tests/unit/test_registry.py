"""Workflows come in by entry point; one that cannot be loaded is named, whatever its author's code raised."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.errors import WorkflowError
from shared.registry import load_registry


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("no_such_package:workflow", "no_such_package:workflow cannot be loaded: ModuleNotFoundError"),
        ("json:no_such_name", "json:no_such_name cannot be loaded: AttributeError"),
        ("json:dumps", "json:dumps is no Workflow"),
        ("workflows.places:workflow", "another workflow has this resource or source table"),
    ],
)
def test_an_entry_point_that_leads_to_no_workflow_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, problem: str
) -> None:
    package = tmp_path / "their_package-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[curation.workflows]\ntheirs = {target}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(WorkflowError, match=problem):
        load_registry()
