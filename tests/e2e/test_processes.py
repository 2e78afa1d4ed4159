"""Child processes of the command line: real ones, ended by their own ids."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from curation_cli.data import place_rows
from curation_cli.processes import LINE_BYTES_MAX, TAIL_LINES, Child, ChildFailed
from tests.support.eventually import eventually

ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def child(module: str, *arguments: str, folder: Path, ready: str) -> Child:
    return Child(module, *arguments, environment=ENVIRONMENT, log=folder / "logs" / "child.log", ready=ready)


def script(code: str, *, folder: Path, log: Path | None = None) -> Child:
    """A child that runs this code."""
    (folder / "script.py").write_text(code)
    environment = {**ENVIRONMENT, "PYTHONPATH": str(folder)}
    return Child("script", environment=environment, log=log or folder / "log", ready="ready")


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


async def test_a_package_of_the_same_name_where_the_user_is_hides_none_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "curation_cli").mkdir()
    (tmp_path / "curation_cli" / "__init__.py").write_text("raise ImportError('theirs')")
    monkeypatch.chdir(tmp_path)
    async with child("curation_cli.place_api", folder=tmp_path, ready="http://"):
        pass


async def test_a_child_that_ends_before_it_is_ready_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match="No module named no_such_module"):
        async with child("no_such_module", folder=tmp_path, ready="ready"):
            pass


async def test_the_end_of_a_child_that_nobody_asked_for_is_told(tmp_path: Path) -> None:
    async with child("platform", folder=tmp_path, ready=sys.platform.capitalize()) as ending:
        failure = await ending.ended()
    assert "platform ended unasked with exit code 0" in str(failure)


async def test_a_child_that_ignores_sigterm_is_ended_when_the_waiting_is_cancelled(tmp_path: Path) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
    stubborn = script(code, folder=tmp_path)
    await stubborn.__aenter__()
    stopping = asyncio.create_task(stubborn.stop())
    done, _ = await asyncio.wait({stopping}, timeout=0)
    assert not done
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert "ended unasked by SIGKILL" in str(await stubborn.ended())


async def test_a_line_of_any_length_goes_to_the_log_and_ends_no_reading(tmp_path: Path) -> None:
    size = 300_000
    code = f"print('x' * {size}); print('ready'); print('y' * {size}); print('last', end='', flush=True); exit(3)"
    async with script(code, folder=tmp_path) as talking:
        failure = str(await talking.ended())
    assert "ended unasked with exit code 3" in failure
    assert failure.endswith("last")
    assert len(failure) < TAIL_LINES * LINE_BYTES_MAX
    assert (tmp_path / "log").read_text() == f"{'x' * size}\nready\n{'y' * size}\nlast"


PARENT = """
import asyncio, os, sys
from pathlib import Path
from curation_cli.processes import Child

async def main():
    async with Child("curation_cli.place_api", environment=os.environ, log=Path(sys.argv[1]), ready="http://") as api:
        print(api.ready_line, api.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_child_whose_parent_is_killed_ends_by_itself(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, tmp_path / "log", env=ENVIRONMENT, stdout=PIPE
    )
    assert parent.stdout is not None
    url, pid = (await parent.stdout.readline()).decode().split()
    try:
        assert accepts(url)
        parent.kill()
        await parent.wait()
        await eventually(lambda: not accepts(url))
    finally:
        if accepts(url):
            os.kill(int(pid), signal.SIGKILL)


def accepts(url: str) -> bool:
    """Whether somebody listens there."""
    address = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((address.hostname, address.port)) == 0


FULL = Path("/dev/full")
"""A disk without room."""


@pytest.mark.skipif(not FULL.exists(), reason="Linux has it")
async def test_a_child_whose_log_cannot_be_written_is_told_of_and_asked_to_end(tmp_path: Path) -> None:
    unheard = script("import signal; print('ready', flush=True); signal.pause()", folder=tmp_path, log=FULL)
    await unheard.start()
    for waiting in (unheard.ready, unheard.ended):
        with pytest.raises(OSError, match="No space left"):
            await waiting()
    await unheard.stop()
    assert unheard.exit_code == -signal.SIGTERM
