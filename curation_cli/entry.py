"""The first step of the `curation` command: Ctrl-C ends it without a traceback while its imports take half a second."""

from __future__ import annotations

import os
import signal


def main() -> int:
    """Loads the command, and runs it. Returns its exit code."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Read by gRPC when it is loaded: it would log each try to connect, of which the error tells.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from curation_cli.main import main as run

    return run()
