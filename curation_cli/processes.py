"""Child processes of `curation up`: each has its log in a file, says when it is ready, and is ended by its pid.

One whose parent is killed ends by itself.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

READY_TIMEOUT_S = 60.0
"""How long a child may take from its start until it says that it is ready."""
GRACE_S = 40.0
"""The time from SIGTERM to SIGKILL: longer than a worker takes to let go of what it has."""
TAIL_LINES = 15
"""How much of a dead child's log an error quotes."""
LINE_BYTES_MAX = 4_096
"""How much of a line is kept, to be quoted or to be known as the ready line; the log file has all of it."""
READ_BYTES = 65_536


class ChildFailed(Exception):
    """A child process ended, or did not get ready; the message quotes the end of its log."""


class Child:
    """One process. Entering returns when it has logged its ready line; leaving when it has ended."""

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str], log: Path, ready: str) -> None:
        """A process that is not started yet.

        Args:
            module: run as `python -m`.
            arguments: of its command line.
            environment: its whole environment.
            log: the file that takes what it prints.
            ready: it is ready once a line holds this.
        """
        # Safe path (-P): a package of the name `shared` where the user is would otherwise be taken for ours.
        self._command: Sequence[str] = (sys.executable, "-P", "-m", "curation_cli.leash", module, *arguments)
        self._environment = environment
        self._ready = ready
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ready_line: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.name = module
        """The module that runs."""
        self.log = log
        """Where its lines are."""

    @property
    def ready_line(self) -> str:
        """The line by which it said that it is ready."""
        return self._ready_line.result()

    @property
    def pid(self) -> int:
        """The process's id, once it is started."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended, a signal as a negative number; None while it runs."""
        return None if self._process is None else self._process.returncode

    async def __aenter__(self) -> Self:
        """Starts it, and waits until it is ready. Raises `ChildFailed` as `ready` does."""
        await self.start()
        try:
            await self.ready()
        except BaseException:
            await self.stop()
            raise
        return self

    async def start(self) -> None:
        """Starts it; `stop` must follow."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # A session of its own: Ctrl-C in the terminal is for `curation up`, which then asks its children to end.
        self._process = await asyncio.create_subprocess_exec(
            *self._command, env=self._environment, stdin=PIPE, stdout=PIPE, stderr=STDOUT, start_new_session=True
        )
        self._reading = asyncio.create_task(self._read(self._process), name=f"log of {self.name}")

    async def ready(self) -> None:
        """Waits until it says so.

        Raises:
            ChildFailed: it ended before that, or takes too long.
            OSError: its log cannot be written.
        """
        assert self._reading is not None, "not started"
        waited_for: set[asyncio.Future[Any]] = {self._ready_line, self._reading}
        await asyncio.wait(waited_for, timeout=READY_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if not self._ready_line.done():
            if self._reading.done():
                self._reading.result()
            raise self.failure("did not get ready")

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def ended(self) -> ChildFailed:
        """Returns when the process has ended, though nobody asked it to, and says so.

        Raises `OSError` when its log cannot be written any more: it would wait for ever to print its next line.
        """
        assert self._reading is not None, "not started"
        assert self._process is not None
        await asyncio.wait({self._reading})
        self._reading.result()
        code = await self._process.wait()
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return self.failure(f"ended unasked {how}")

    async def stop(self) -> None:
        """Asks the process to end, makes it after `GRACE_S`, and at once when cancelled while it waits."""
        assert self._process is not None, "not started"
        assert self._reading is not None, "not started"
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), GRACE_S)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._process.wait()
        except asyncio.CancelledError:
            self._signal(signal.SIGKILL)
            await self._process.wait()
            raise
        await asyncio.wait({self._reading})

    def failure(self, what: str) -> ChildFailed:
        """An error with the end of what it logged."""
        return ChildFailed("\n    ".join([f"{self.name} {what}; {self.log} ends:", *self._tail]))

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "not started"
        if self._process.returncode is None:
            # Not by `send_signal`, which looks first whether it has ended, and takes its exit code from asyncio.
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def _read(self, process: Process) -> None:
        """Moves what it prints into the log file until the process has closed its output, however long its lines."""
        assert process.stdout is not None
        with self.log.open("ab", buffering=0) as log:
            begun = b""
            while chunk := await process.stdout.read(READ_BYTES):
                log.write(chunk)
                *lines, begun = (begun + chunk).split(b"\n")
                begun = begun[:LINE_BYTES_MAX]
                for line in lines:
                    self._take(line[:LINE_BYTES_MAX])
            if begun:
                self._take(begun)

    def _take(self, printed: bytes) -> None:
        line = printed.decode(errors="replace").rstrip()
        self._tail.append(line)
        if self._ready in line and not self._ready_line.done():
            self._ready_line.set_result(line)
