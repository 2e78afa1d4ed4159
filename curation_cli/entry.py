"""The first step of the `curation` command: Ctrl-C ends it without a traceback while its imports take half a second."""

from __future__ import annotations

import signal


def main() -> int:
    """Loads the command, and runs it. Returns its exit code."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from curation_cli.main import main as run

    return run()
