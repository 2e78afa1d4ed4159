"""`curation up` as a user meets it: it says what is wrong, ends when asked, and leaves nothing running."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from tests.support.postgres import short_folder

TIMEOUT_S = 50
CURATION = Path(sys.executable).with_name("curation")


@contextmanager
def called(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The command, in an environment without settings but these; killed when it is still there at the end."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CURATION_", "DATABASE_URL"))}
    process = subprocess.Popen(
        [CURATION, *arguments],
        env={**kept, "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def told(*arguments: str, **environment: str) -> tuple[int, str]:
    """Its exit code, and what it said."""
    with called(*arguments, **environment) as process:
        output, _ = process.communicate(timeout=TIMEOUT_S)
    assert "Traceback" not in output
    return process.returncode, output


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a space in its name, and a letter that is not ASCII."""
    with short_folder("curation ü") as folder:
        yield folder


def test_a_port_that_is_taken_is_no_start(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, output = told("up", "--data", str(folder), "--port", str(port))
    assert code == 1
    assert f"ADDRESS_UNAVAILABLE: cannot listen on 127.0.0.1:{port}: Address already in use" in output
    assert "Ctrl-C ends it all" not in output


@pytest.mark.parametrize("line", ["Starting ", "Ctrl-C ends it all"])
def test_ctrl_c_ends_it_all_whenever_it_comes(folder: Path, line: str) -> None:
    # However little they log, it is known when they are ready; a terminal may lack letters of what is told; and the
    # environment may be that of a service with TLS.
    odd = {"CURATION_LOG_LEVEL": "ERROR", "PYTHONIOENCODING": "ascii", "CURATION_TLS_KEY_FILE": "key.pem"}
    with called("up", "--data", str(folder), "--port", "0", **odd) as process:
        assert process.stdout is not None
        for said in process.stdout:
            if said.startswith(line):
                process.send_signal(signal.SIGINT)
                break
        rest, _ = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, "Traceback" in rest) == (0, False)
    assert not list(folder.rglob("postmaster.pid"))


def children(of: int) -> list[int]:
    """Processes that it has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            _, parent, *_ = stat.read_text().rpartition(")")[2].split()
            if int(parent) == of:
                found.append(int(stat.parent.name))
    return found


def in_a_terminal(end: int) -> None:
    """Makes it the terminal of the process that is about to begin, which heeds that it is closed."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests by `nohup` has them ignore it
    os.login_tty(end)


def test_a_terminal_that_is_closed_ends_it_all(folder: Path) -> None:
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [CURATION, "up", "--data", str(folder), "--port", "0"], pass_fds=[its], preexec_fn=partial(in_a_terminal, its)
    )
    os.close(its)
    try:
        said = b""
        while b"Ctrl-C ends it all" not in said:
            said += os.read(ours, 1024)
        started = children(process.pid)
        os.close(ours)
        process.wait(timeout=TIMEOUT_S)
    finally:
        process.kill()
        process.wait()
    assert len(started) == 3, "PostgreSQL, service, worker"
    assert [pid for pid in started if Path(f"/proc/{pid}").exists()] == []
    assert not list(folder.rglob("postmaster.pid"))


def test_a_postgresql_that_dies_ends_it_all(folder: Path) -> None:
    with called("up", "--data", str(folder), "--port", "0") as process:
        assert process.stdout is not None
        for said in process.stdout:
            if said.startswith("Ctrl-C ends it all"):
                (its,) = folder.rglob("postmaster.pid")
                os.kill(int(its.read_text().split()[0]), signal.SIGKILL)
                break
        rest, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert "PostgreSQL ended unasked; " in rest


@pytest.mark.parametrize(
    ("command", "url", "problem"),
    [
        (["up"], "nonsense", "DATABASE_URL is no address of PostgreSQL"),
        (["up"], "postgresql://somebody:s3cret@127.0.0.1:1/x", "Connection refused"),
        (["up", "--demo"], "postgresql://somebody:s3cret@nowhere.invalid/x", "nowhere.invalid"),
    ],
)
def test_a_database_that_cannot_be_is_said_to_be_so(folder: Path, command: list[str], url: str, problem: str) -> None:
    code, output = told(*command, "--data", str(folder), "--port", "0", DATABASE_URL=url)
    assert (code, problem in output, "s3cret" in output) == (1, True, False), output
    assert "Starting PostgreSQL" not in output


def test_a_setting_that_cannot_be_is_quoted_from_the_log_of_who_refused_it(folder: Path) -> None:
    code, output = told("up", "--data", str(folder), "--port", "0", CURATION_POOL_SIZE="many")
    assert code == 1
    assert "SETTINGS_INVALID: CURATION_POOL_SIZE='many' input should be a valid integer" in output


def test_a_folder_that_cannot_be_is_said_to_be_so(folder: Path) -> None:
    (folder / "file").write_text("")
    code, output = told("up", "--data", str(folder / "file" / "x"), "--port", "0")
    assert code == 1
    assert "file" in output


@pytest.mark.parametrize("command", ["list", "watch"])
def test_a_service_that_is_not_there_is_said_to_be_so(command: str) -> None:
    code, output = told(command, "places", "--address", "127.0.0.1:1")
    assert code == 1
    assert output.startswith("no service answers: ")
    assert "`curation up` starts one" in output
