"""The outermost layer of a process: it holds whatever it was started with, or without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import faulthandler, os, resource, sys
from pathlib import Path
from shared.program import run_program
from shared.settings import DatabaseSettings

def run(settings):
    faulthandler.dump_traceback(sys.stderr)
    print("to nobody")
    streams = [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    Path(sys.argv[1]).write_text(f"{files} {' '.join(streams)}")

sys.exit(run_program("test", DatabaseSettings, run))
"""


def found_by_program(folder: Path, *, started: str) -> list[str]:
    """How many files a program may open, and its standard streams, where a shell has started it so."""
    command = [sys.executable, "-c", PROGRAM, str(folder / "found")]
    environment = {"DATABASE_URL": "postgresql://127.0.0.1/x", "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run(["sh", "-c", started, "sh", *command], env=environment, check=True)
    return (folder / "found").read_text().split()


def test_without_standard_streams_no_socket_becomes_one_of_them(tmp_path: Path) -> None:
    _, *streams = found_by_program(tmp_path, started='exec "$@" <&- >&- 2>&-')
    assert streams == ["/dev/null"] * 3


def test_as_many_files_may_be_open_as_the_hard_limit_allows(tmp_path: Path) -> None:
    files, *_ = found_by_program(tmp_path, started='ulimit -Sn 64; ulimit -Hn 300; exec "$@" >/dev/null 2>&1')
    assert files == "300"
