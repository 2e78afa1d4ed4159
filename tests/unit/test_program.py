"""The outermost layer of a process: it holds whatever it was started with, or without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

STARTED_WITHOUT = """
import os, sys
from pathlib import Path
from shared.program import run_program
from shared.settings import DatabaseSettings

def run(settings):
    import faulthandler
    faulthandler.dump_traceback(sys.stderr)
    print("to nobody")
    Path(sys.argv[1]).write_text(" ".join(os.readlink(f"/proc/self/fd/{number}") for number in range(3)))

sys.exit(run_program("test", DatabaseSettings, run))
"""


def test_without_standard_streams_no_socket_becomes_one_of_them(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STARTED_WITHOUT, str(tmp_path / "streams")]
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    environment = {"DATABASE_URL": "postgresql://127.0.0.1/x", "PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run([*shell, *command], env=environment, check=False).returncode == 0
    assert (tmp_path / "streams").read_text() == "/dev/null /dev/null /dev/null"
