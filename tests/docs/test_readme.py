"""What the documentation says can be done is done here, or checked against what there is."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest

from curation_cli.main import main
from shared.registry import load_registry
from tests.docs.pages import PAGES, ROOT, blocks, commands
from tests.docs.settings_page import PAGE, settings_page
from tests.docs.system import add_places, run_python, running_system
from tests.support.worker import Api, Reply

README = ROOT / "README.md"
ADDRESS = "127.0.0.1:50051"
BUF = ".venv/bin/buf curl "
COMMANDS = [pytest.param(line, id=f"{page.name}: {line[:50]}") for page in PAGES for line in commands(page)]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")
LINK_TO_HEADING = re.compile(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)")


async def test_the_python_of_the_readme_runs(database_url: str) -> None:
    async def place(_: str) -> Reply:
        return Reply({"displayName": {"text": "somewhere"}})

    api = Api()
    api.answer = place
    async with api.serve() as api_url:
        printed = await printed_by_the_readme(
            database_url, {"GOOGLE_PLACES_URL": api_url, "GOOGLE_PLACES_API_KEY": "test"}
        )
    assert printed[0] == "5 queued"
    assert sum(line.endswith(" complete ") for line in printed) == 5


async def test_without_a_key_the_places_of_the_readme_fail_and_their_errors_say_why(database_url: str) -> None:
    assert "Without a `GOOGLE_PLACES_API_KEY`" in README.read_text()
    printed = await printed_by_the_readme(database_url, {})
    assert printed[0] == "5 queued"
    assert sum(" fail GOOGLE_PLACES_API_KEY is not set" in line for line in printed) == 5


async def printed_by_the_readme(database_url: str, environment: Mapping[str, str]) -> list[str]:
    """Runs its Python, with this environment of the worker; gives the lines."""
    (snippet,) = blocks(README, "python")
    await add_places(database_url)
    async with running_system(database_url, load_registry(), environment) as address:
        assert ADDRESS in snippet.text
        return (await run_python("-c", snippet.text.replace(ADDRESS, address))).splitlines()


async def test_a_stock_client_makes_the_calls_by_reflection(database_url: str) -> None:
    await add_places(database_url)
    lines = [line for line in commands(README) if line.startswith(BUF)]
    async with running_system(database_url, load_registry(), {}) as address:
        listed, updated = [await called(line.replace(ADDRESS, address)) for line in lines]
    assert len(listed["items"]) == 5
    assert updated["batch"]["status"] == "SelectedForDeepScan"


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_names_what_there_is(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(line)
    match words:
        case ["make", target]:
            assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
        case ["python", "-m", module]:
            assert find_spec(module)
        case [".venv/bin/curation", command, *_]:
            with pytest.raises(SystemExit):
                main([command, "--help"])
            told = capsys.readouterr().out
            assert "usage: curation" in told
            assert [word for word in words if word.startswith("--") and word not in told] == []
        case [".venv/bin/buf", "curl", *_]:
            pass  # its call is made above
        case ["docker", "compose", "up" | "down", *_]:
            pass  # `make containers` makes them, under a name of its own
        case [".venv/bin/pip", "install", _]:
            pass  # of the package that its page's own test installs
        case _:
            pytest.fail(f"no check for {line!r}")


@pytest.mark.parametrize(
    ("page", "statement"),
    [
        pytest.param(page, block.text, id=page.name)
        for page in PAGES
        if page.parent.name == "operate"
        for block in blocks(page, "sql")
        if block.title != "pooled.sql"  # names a database, and has a test of its own
    ],
)
async def test_a_statement_for_operators_runs(page: Path, statement: str, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        cursor = await connection.execute(statement.encode())
    assert cursor.statusmessage, page


def test_the_two_commands_come_first() -> None:
    assert commands(README)[:2] == ["make run", "make test"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text()
    links = [page.parent / link for link in LINK.findall(text)]
    files = [ROOT / name for name in re.findall(r"`([a-z_]+/[\w./]+\.(?:py|proto|md))`", text)]
    named = [path for path in files if page.name != "add-a-workflow.md"]
    assert [str(path) for path in [*links, *named] if not path.exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_headings_that_a_page_names_are_there(page: Path) -> None:
    links = LINK_TO_HEADING.findall(page.read_text())
    assert [link for link in links if link[1] not in headings(page.parent / link[0] if link[0] else page)] == []


def headings(page: Path) -> list[str]:
    """The headings of a page, as links name them."""
    found = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in found]


def test_the_page_of_settings_is_what_the_code_says() -> None:
    assert PAGE.read_text() == settings_page(), "run `python -m tests.docs.settings_page`"


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = [str(page.relative_to(ROOT / "docs")) for page in PAGES if ROOT / "docs" in page.parents]
    assert [page for page in pages if page != "README.md" and f"({page})" not in index] == []


async def called(line: str) -> dict[str, Any]:
    """Makes a call as the page says; gives the answer."""
    buf, *arguments = shlex.split(line)
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name(Path(buf).name), *arguments, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    answer: dict[str, Any] = json.loads(printed)
    return answer
