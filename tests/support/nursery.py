"""Workers that start by a fork of a process which has all of it imported: that takes a fortieth of the processor time.

Hundreds are killed in a run. What runs in them is the same program, and each is a process of its own.
`python -m tests.support.nursery` is the process that forks; it ends its children and itself when its input ends.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import select
import signal
import sys
import traceback
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from enrichment_worker.__main__ import run
from enrichment_worker.settings import WorkerSettings
from shared.attempt import load_enricher
from shared.program import run_program
from shared.registry import load_registry
from workflows.places import workflow

LOOK_S = 0.02
TAIL_LINES = 15


class Fork:
    """One process that was forked."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid, self.log = pid, log
        self.exit_code: int | None = None
        """How it ended, a signal as a negative number; None while it runs."""
        self._over = asyncio.Event()

    async def ready(self, line: str) -> bool:
        """Returns True once its log has the line; False when it has ended without."""
        while line not in self.log.read_text(errors="replace"):
            if self._over.is_set():
                return False
            await asyncio.sleep(LOOK_S)
        return True

    async def ended(self) -> int:
        """Its exit code, once it has ended."""
        await self._over.wait()
        assert self.exit_code is not None
        return self.exit_code

    def end(self, exit_code: int) -> None:
        """It has ended."""
        self.exit_code = exit_code
        self._over.set()

    @property
    def tail(self) -> str:
        """The end of its log."""
        return "\n    ".join(self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:])


class Nursery:
    """`async with Nursery() as nursery:`; leaving ends all that it has started."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._forks: dict[int, Fork] = {}
        self._born: asyncio.Queue[int] = asyncio.Queue()
        self._starting = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        root = str(Path(__file__).resolve().parents[2])
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.nursery"), cwd=root, stdin=PIPE, stdout=PIPE, start_new_session=True
        )
        self._reading = asyncio.create_task(self._read(self._process))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        assert self._reading is not None
        await asyncio.wait({self._reading})

    async def start(self, environment: Mapping[str, str], log: Path) -> Fork:
        """Starts a worker with this environment, which prints into this file."""
        assert self._process is not None
        assert self._process.stdin is not None
        log.touch()
        async with self._starting:
            order = {"environment": dict(environment), "log": str(log)}
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            fork = Fork(await self._born.get(), log)
            self._forks[fork.pid] = fork
        return fork

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            match json.loads(line):
                case {"born": pid}:
                    self._born.put_nowait(pid)
                case {"pid": pid, "exit_code": exit_code}:
                    while pid not in self._forks:  # noqa: ASYNC110 - it was born a moment ago
                        await asyncio.sleep(0)
                    self._forks.pop(pid).end(exit_code)


def serve() -> None:
    """Forks for each line of the input, and says which children have ended."""
    load_registry()
    load_enricher(workflow)
    gc.freeze()
    received, children = b"", set[int]()
    while True:
        if select.select([0], [], [], LOOK_S)[0]:
            chunk = os.read(0, 65_536)
            if not chunk:
                break
            received += chunk
            *lines, received = received.split(b"\n")
            for line in lines:
                children.add(_fork(**json.loads(line)))
        while children and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            children.discard(ended[0])
            _say(pid=ended[0], exit_code=os.waitstatus_to_exitcode(ended[1]))
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _fork(environment: Mapping[str, str], log: str) -> int:
    pid = os.fork()
    if pid:
        _say(born=pid)
        return pid
    code = 1
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_APPEND)
        for number in (1, 2):
            os.dup2(output, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.clear()
        os.environ.update(environment)
        code = run_program("enrichment_worker", WorkerSettings, run)
    except BaseException:  # noqa: BLE001 - as the interpreter would
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _say(**words: int) -> None:
    os.write(1, json.dumps(words).encode() + b"\n")


if __name__ == "__main__":
    serve()
