"""The commands of the page for operators are run, one after the other, on places that have failed."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from contextlib import AsyncExitStack

from shared.registry import load_registry
from tests.docs.pages import ROOT, commands
from tests.docs.system import add_places, run_python, running_system
from tests.support.worker import Api, Reply

PAGE = ROOT / "docs" / "operate" / "workers.md"
RUN_ALL = """
import json, os, sys
os.environ["COLUMNS"] = "160"
from curation_cli.main import main
for line in json.loads(sys.argv[1]):
    print("$", *line, flush=True)
    assert main([*line, "--address", sys.argv[2]]) == 0
"""


async def run_all(lines: Iterable[list[str]], address: str) -> dict[str, str]:
    """Runs commands in one process. Gives what each printed."""
    printed = await run_python("-c", RUN_ALL, json.dumps(list(lines)), address)
    parts = (part.partition("\n") for part in re.split(r"^\$ ", printed, flags=re.MULTILINE)[1:])
    return {command: told for command, _, told in parts}


async def test_an_operator_can_do_what_the_page_says(database_url: str) -> None:
    async def refuse(_: str) -> Reply:
        return Reply(status=400)

    api = Api()
    api.answer = refuse
    await add_places(database_url)
    lines = [shlex.split(line)[1:] for line in commands(PAGE)]
    async with AsyncExitStack() as stack:
        environment = {
            "GOOGLE_PLACES_URL": await stack.enter_async_context(api.serve()),
            "GOOGLE_PLACES_API_KEY": "test",
        }
        address = await stack.enter_async_context(running_system(database_url, load_registry(), environment))
        queueing = ["set", "places", "SelectedForDeepScan", "--filter", "id:*", "--priority", "high"]
        await run_all([queueing, ["watch", "places", "--batch", "1"]], address)
        told = await run_all([line for line in lines if "GROUP" not in line], address)
        group = re.findall(r"-?\d{6,}", told["failures places"])[0]
        with_group = [[group if word == "GROUP" else word for word in line] for line in lines if "GROUP" in line]
        told |= await run_all(with_group, address)
    said = {
        "workers": "alive",
        "workers places --ended": "places",
        "workflows": "running",
        "pause places": "places: paused since",
        "drain places": "places: draining since",
        "resume places": "places: running",
        "set places Selected": "nothing is changed; it would be: 7 items, 7 changed, 0 queued",
        "why places": "failed: attempt 1 of",
        "failures places --batch 1": "7",
        "retry places --batch 1 --dry-run": "nothing is changed; it would be: 7 items, 7 changed, 7 queued",
        f"retry places --group {group}": "batch 2: 7 items, 7 changed, 7 queued",
    }
    for start, words in said.items():
        assert any(words in out for command, out in told.items() if command.startswith(start)), (start, told)


async def test_where_nothing_has_failed_that_is_told_plainly(database_url: str) -> None:
    await add_places(database_url)
    async with running_system(database_url, load_registry(), {}) as address:
        told = await run_all(
            [["failures", "places"], ["why", "places", "00000000-0000-0000-0000-000000000000"]], address
        )
    assert "status no trigger" in told["why places 00000000-0000-0000-0000-000000000000"]
