"""Child processes of the command line: real ones, ended by their own ids."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import httpx
import pytest

from curation_cli.data import place_rows
from curation_cli.processes import Child, ChildFailed

ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def child(module: str, *arguments: str, folder: Path, ready: str) -> Child:
    return Child(module, *arguments, environment=ENVIRONMENT, log=folder / "logs" / "child.log", ready=ready)


async def test_the_place_api_says_where_it_listens_answers_there_and_ends(tmp_path: Path) -> None:
    place = next(place_rows())
    async with httpx.AsyncClient(trust_env=False) as http:
        async with child("curation_cli.place_api", folder=tmp_path, ready="http://") as api:
            page = await http.get(f"{api.ready_line}/site/{place.external_id}/")
            headers = {"X-Goog-Api-Key": "k", "X-Goog-FieldMask": "id"}
            await http.get(f"{api.ready_line}/v1/places/unknown", headers=headers)
            requests = (await http.get(f"{api.ready_line}/requests")).json()
        with pytest.raises(httpx.ConnectError):
            await http.get(api.ready_line)
    assert page.status_code == 200
    assert f"<title>{place.name}</title>" in page.text
    assert requests == {"total": 1, "by_place": {"unknown": 1}}


async def test_a_child_that_ends_before_it_is_ready_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match="No module named no_such_module"):
        async with child("no_such_module", folder=tmp_path, ready="ready"):
            pass


async def test_the_end_of_a_child_that_nobody_asked_for_is_told(tmp_path: Path) -> None:
    async with child("platform", folder=tmp_path, ready=sys.platform.capitalize()) as ending:
        failure = await ending.ended()
    assert "platform ended unasked with exit code 0" in str(failure)


async def test_a_child_that_ignores_sigterm_is_ended_when_the_waiting_is_cancelled(tmp_path: Path) -> None:
    code = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(60)"
    )
    (tmp_path / "stubborn.py").write_text(code)
    environment = {**ENVIRONMENT, "PYTHONPATH": str(tmp_path)}
    stubborn = Child("stubborn", environment=environment, log=tmp_path / "log", ready="ready")
    await stubborn.__aenter__()
    stopping = asyncio.create_task(stubborn.stop())
    done, _ = await asyncio.wait({stopping}, timeout=0)
    assert not done
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert "ended unasked by SIGKILL" in str(await stubborn.ended())
