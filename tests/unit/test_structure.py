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
WRITES_STATUS = re.compile(
    r"\bUPDATE\b[^;]{0,400}?\bSET\b[^;]{0,400}?(\bstatus\b|queue_status|_status\b)\"?\s*=", re.IGNORECASE | re.DOTALL
)
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


@pytest.mark.parametrize("source", [source for source in SOURCES if source != WRITER])
def test_only_the_writer_changes_a_status(source: str) -> None:
    found = [text for text in texts(ast.parse((ROOT / source).read_text())) if WRITES_STATUS.search(text)]
    assert found == []
