"""What a reader of this code may rely on: small files and functions, each file says why, one writer of statuses."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("curation_cli", "curation_client", "curation_service", "enrichment_worker", "shared", "workflows")
FILE_LINES_MAX = 300
FUNCTION_LINES_MAX = 70
WRITER = "shared/db/writer.py"
STATUS = r'(?:\{(?:\w+\.)*(?:status|queue)\}|"?\w*status"?)'
"""A column of a status, by the name that statements are composed with (`{status}`, `{queue}`) or by its own."""
# What is assigned to follows SET or a comma, or is in brackets; what is compared follows WHERE, AND, a table, ....
WRITES_STATUS = re.compile(rf"\bSET\s+(?:(?:[^;]*,)?\s*{STATUS}\s*=|\([^()]*{STATUS}[^()]*\)\s*=)", re.IGNORECASE)
SOURCES = sorted(str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def texts(tree: ast.Module) -> Iterator[str]:
    """The strings of a file that are no docstrings."""
    docs = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docs:
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield ast.unparse(node).replace(r"\n", "\n")


@pytest.mark.parametrize("source", SOURCES)
def test_a_file_is_short_says_why_it_exists_and_has_short_functions(source: str) -> None:
    text = (ROOT / source).read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "no docstring at the top"
    assert len(text.splitlines()) <= FILE_LINES_MAX
    lengths = {function.name: (function.end_lineno or 0) - function.lineno + 1 for function in functions(tree)}
    assert {name: length for name, length in lengths.items() if length > FUNCTION_LINES_MAX} == {}


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_pins_by_hashes_and_names_no_address(lock: str) -> None:
    lines = (ROOT / lock).read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert pins
    assert [line for line in pins if not re.match(r"[\w.-]+==[\w.]+( ; .+)? \\$", line)] == []
    assert sum("--hash=sha256:" in line for line in lines) >= len(pins)
    assert [line for line in lines if "://" in line or "index-url" in line or "find-links" in line] == []


@pytest.mark.parametrize("package", ["curation", *PACKAGES])
def test_the_images_have_every_package(package: str) -> None:
    assert f"COPY {package} {package}\n" in (ROOT / "Dockerfile").read_text()
    assert f"!{package}\n" in (ROOT / ".dockerignore").read_text()


@pytest.mark.parametrize("source", SOURCES)
def test_the_writer_alone_changes_a_status(source: str) -> None:
    found = [text for text in texts(ast.parse((ROOT / source).read_text())) if WRITES_STATUS.search(text)]
    assert len(found) == (source == WRITER), found


@pytest.mark.parametrize(
    "assignment",
    [
        "SET status = 'New'",
        "SET\n    version = 1,\n    {queue}\n    = NULL",
        "SET x = (SELECT y FROM z WHERE {status} = 'New'), {status} = x",
        "SET ({worker}, {queue}) = (NULL, NULL)",
        'DO UPDATE SET "scan_status" = excluded.scan_status',
        "SET {workflow.queue.status} = 'queued'",
    ],
)
def test_a_status_that_is_assigned_is_seen(assignment: str) -> None:
    assert WRITES_STATUS.search(assignment)


@pytest.mark.parametrize(
    "comparison",
    [
        "SET x = 1 WHERE status = 'New'",
        "SET x = 1, y = 2\nWHERE {status} = 'New' AND {queue} = 'queued'",
        "SET {turn} = CASE WHEN s.{queue} = 'queued' THEN 1 END, x = s.{status} = 'New'",
        "UPDATE worker_session SET ended_at = now()",
        "SELECT {status}, {queue} = 'queued'",
    ],
)
def test_a_status_that_is_compared_is_not(comparison: str) -> None:
    assert not WRITES_STATUS.search(comparison)
