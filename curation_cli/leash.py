"""Runs a module as `python -m` does, and asks it to end once its parent is gone: a killed one cannot.

Standard input is the leash. The parent holds its other end and writes nothing; the kernel lets go of it, however the
parent dies.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def main() -> None:
    """The module that the command line names, with the arguments behind it."""
    leash, nothing = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # what runs here has no standard input
    os.close(nothing)
    threading.Thread(target=_end_with_parent, args=[leash], name="leash", daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _end_with_parent(leash: int) -> None:
    while os.read(leash, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
