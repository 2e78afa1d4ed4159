"""The page that says how to add a workflow is followed to the letter: its package is installed, and a book enriched."""

from __future__ import annotations

import ast
import importlib
import runpy
import tomllib
from pathlib import Path

import psycopg
import pytest

from shared.db.migrate import migrate
from shared.registry import load_registry
from tests.docs.pages import ROOT, blocks, commands
from tests.docs.system import run_python, running_system
from tests.support.worker import Api, Reply

PAGE = ROOT / "docs" / "guide" / "add-a-workflow.md"
FILES = {block.title: block.text for block in blocks(PAGE) if block.title}
PYTHON = [text for title, text in FILES.items() if title.endswith(".py")]
LINES_MAX = 60


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's package, installed as pip would: files, and metadata made from its pyproject.toml."""
    for title, text in FILES.items():
        path = tmp_path / title
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    project = tomllib.loads(FILES["pyproject.toml"])["project"]
    metadata = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    metadata.joinpath("METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    metadata.joinpath("entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
            for group, points in project["entry-points"].items()
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return tmp_path


@pytest.mark.usefixtures("package")
async def test_a_book_is_enriched_by_what_the_page_says(database_url: str) -> None:
    async def answer(name: str) -> Reply:
        return (
            Reply({"title": "Momo", "number_of_pages": 304}) if name == "isbn/9783522202558.json" else Reply(None, 404)
        )

    registry = load_registry()
    assert set(registry) == {"books", "local_businesses", "places"}
    migrate(database_url, registry)
    insert, _ = blocks(PAGE, "sql")
    api = Api()
    api.answer = answer
    async with (
        api.serve() as api_url,
        running_system(database_url, registry, {"OPEN_LIBRARY_URL": api_url}) as address,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection,
    ):
        await connection.execute(insert.text.encode())
        setting, listing = _curation_commands()
        assert "1 queued" in await run_python("-m", "curation_cli.main", *setting, "--address", address)
        await _watched(address)
        assert "completed" in await run_python("-m", "curation_cli.main", *listing, "--address", address)
        cursor = await connection.execute(
            "SELECT lookup_status, isbn, title, pages FROM books JOIN book_details USING (isbn)"
        )
        assert await cursor.fetchall() == [("completed", "9783522202558", "Momo", 304)]


_SHAPE = """
    SELECT column_name || ' ' || data_type || ' ' || is_nullable || ' ' || coalesce(column_default, '')
    FROM information_schema.columns WHERE table_name = 'books' AND column_name NOT IN ('id', 'isbn')
    UNION ALL
    SELECT regexp_replace(indexdef, 'INDEX .* ON', 'INDEX ON') FROM pg_indexes WHERE tablename = 'books'
    ORDER BY 1"""


@pytest.mark.usefixtures("package")
def test_a_table_that_was_there_becomes_what_would_have_been_made(empty_database_url: str) -> None:
    _, adopt = blocks(PAGE, "sql")
    shapes = []
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        for statement in ("CREATE TABLE books (id bigint PRIMARY KEY, isbn text NOT NULL);" + adopt.text, "SELECT 1"):
            connection.execute(statement.encode())
            migrate(empty_database_url, load_registry())
            shapes.append(connection.execute(_SHAPE).fetchall())
            connection.execute("DROP TABLE books")
    assert shapes[0] == shapes[1]


async def test_the_enricher_passes_the_test_of_the_page(package: Path) -> None:
    test = runpy.run_path(str(package / "test_enricher.py"))
    await test["test_a_book_without_pages_is_found"]()


def test_it_takes_fewer_lines_than_promised() -> None:
    code = [text for title, text in FILES.items() if not title.startswith("test_")]
    assert sum(bool(line.strip()) for text in code for line in text.splitlines()) < LINES_MAX


@pytest.mark.parametrize("text", PYTHON)
def test_no_private_name_is_needed(text: str) -> None:
    names = {name for node in ast.walk(ast.parse(text)) for name in _names(node)}
    assert {name for name in names if name.startswith("_")} == set()


def _names(node: ast.AST) -> list[str]:
    match node:
        case ast.Name():
            return [node.id]
        case ast.Attribute():
            return [node.attr]
        case ast.ImportFrom():
            return [*(node.module or "").split("."), *(alias.name for alias in node.names)]
    return []


def _curation_commands() -> list[list[str]]:
    """The page's commands for a running service."""
    found = [line.split()[1:] for line in commands(PAGE) if line.startswith(".venv/bin/curation ")]
    return [words for words in found if words[0] != "up"]


async def _watched(address: str) -> None:
    """Returns when the books' one batch is done."""
    code = (
        "import sys, grpc\n"
        "from curation.v1 import curation_pb2 as pb, curation_pb2_grpc\n"
        "with grpc.insecure_channel(sys.argv[1]) as channel:\n"
        "    service = curation_pb2_grpc.CurationServiceStub(channel)\n"
        "    (batch,) = service.ListBatches(pb.ListBatchesRequest(resource='books')).batches\n"
        "    request = pb.WatchStatusRequest(resource='books', batch_id=batch.batch_id, end_when_done=True)\n"
        "    list(service.WatchStatus(request))\n"
    )
    await run_python("-c", code, address)
