"""What a watch does about everything that can happen to its stream: one policy, without I/O, under both clients.

A stream that breaks is opened again from the last token, so nothing is missed and nothing comes twice. A token that
the log no longer reaches back to is given up for a snapshot, and the watcher is told by `SnapshotStart`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TypeAlias

import grpc

from curation.v1 import curation_pb2 as pb
from curation_client.tls import handshake_failed


@dataclass(frozen=True, slots=True)
class SnapshotStart:
    """A snapshot begins: what follows replaces everything seen before."""


Part: TypeAlias = (
    SnapshotStart | pb.ItemsSnapshot | pb.SnapshotEnd | pb.StatusEvents | pb.BatchProgress | pb.WorkflowState
)
"""What a watch yields; heartbeats are left out. The state of the workflow comes with each stream that is opened."""


@dataclass(frozen=True, slots=True)
class Update:
    """One part of a watch."""

    part: Part
    """What happened."""
    resume_token: str
    """The position behind it, to go on from in another watch; empty while a snapshot is under way, and in all but the
    last part of a change that is told in several."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Backoff:
    """How long a watch waits before it opens its stream again: doubled each time, full jitter."""

    first_s: float = 0.1
    """At most this, the first time."""
    longest_s: float = 10.0
    """At most this, ever."""

    def delay_s(self, failures: int, dice: random.Random) -> float:
        """The wait after so many failures in a row, at least 1."""
        return dice.uniform(0, min(self.longest_s, self.first_s * 2 ** min(failures - 1, 30)))


LOST = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,  # by the server or a proxy: the clients never ask after a stream they cancelled
    }
)
"""Ends of a stream that another try may mend."""
BROKEN_OFF = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN})
"""Ends of a stream, or of a try to open one, by a proxy that has lost its service, or not heard it for too long."""
HTTP_STATUS = "http2 header with status"
"""How gRPC says that a proxy has refused it; what another try may mend, 502 say, has the code UNAVAILABLE."""
DETAILS_KEY = "grpc-status-details-bin"
"""Of the trailer that each error of the service itself has."""
TIMEOUTS_MAX = 5
"""So many streams in a row may end by a timeout before they have given a token, as a snapshot does that always takes
longer than the database lets it: each try costs the service the same again, and is no nearer to the end."""
TOO_LARGE = "larger than max"
"""How gRPC's own refusal of a message says so: it has the code of a service that is busy, and no details."""


class WatchState:
    """Where one watch is. The client asks it for the next request, and tells it what came of it."""

    def __init__(
        self, request: pb.WatchStatusRequest, *, backoff: Backoff, dice: random.Random, wait_for_ready: bool = True
    ) -> None:
        self.wait_for_ready = wait_for_ready
        """Whether the next stream waits for a service that is away. From the first message on it does: a watch outlives
        lost connections, and calls that fail, over and over, leak (grpc/grpc#38499)."""
        self.request = pb.WatchStatusRequest()
        """What to open the stream with, the last token in it."""
        self.request.CopyFrom(request)
        self._backoff = backoff
        self._dice = dice
        self._failures = 0
        self._timeouts = 0
        self._in_snapshot = False
        self._held: list[Update] = []

    def received(self, response: pb.WatchStatusResponse) -> list[Update]:
        """Takes note of a message and returns what the watcher should see of it, or of it and those before it.

        A change that takes several messages is held until its last one, which has the token: were the stream to break
        amid them, all of the change would come again.
        """
        self._failures = 0
        self.wait_for_ready = True
        comes_again = bool(self.request.resume_token) and not response.resume_token
        if response.resume_token:
            self._timeouts = 0
            self.request.resume_token = response.resume_token
        which = response.WhichOneof("part")
        updates: list[Update] = []
        if which in ("snapshot", "snapshot_end"):
            if not self._in_snapshot:
                updates.append(Update(SnapshotStart(), ""))
            self._in_snapshot = which == "snapshot"
        if which is not None and which != "heartbeat":
            updates.append(Update(getattr(response, which), response.resume_token))
        self._held += updates
        if comes_again:
            return []
        updates, self._held = self._held, []
        return updates

    def lost(self, error: grpc.RpcError | None) -> float | None:
        """Decides what follows the end of a stream: seconds until the next one, None to end the watch, or `error`.

        Args:
            error: what the stream ended by; None when the server ended it in order.
        """
        self._in_snapshot = False
        self._held.clear()
        if error is None and self.request.end_when_done:
            return None
        if error is not None and code_of(error) is grpc.StatusCode.OUT_OF_RANGE and self.request.resume_token:
            self.request.resume_token = ""
            self.request.skip_snapshot = False
            return 0.0
        if error is not None and code_of(error) is grpc.StatusCode.DEADLINE_EXCEEDED:
            self._timeouts += 1
        if error is not None and not self._may_pass(error):
            raise error
        self._failures += 1
        return self._backoff.delay_s(self._failures, self._dice)

    def _may_pass(self, error: grpc.RpcError) -> bool:
        match code_of(error):
            case grpc.StatusCode.UNAVAILABLE:
                return self.wait_for_ready and not handshake_failed(error)
            case grpc.StatusCode.RESOURCE_EXHAUSTED:
                return TOO_LARGE not in (error.details() or "")
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return self._timeouts < TIMEOUTS_MAX
            case code if code in BROKEN_OFF:
                is_final = _is_of_service(error) or HTTP_STATUS in (error.details() or "")
                return self.wait_for_ready and not is_final
            case code:
                return code in LOST


def code_of(error: grpc.RpcError) -> grpc.StatusCode | None:
    """The code of an error; the type of one has none."""
    return error.code() if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else None


def _is_of_service(error: grpc.RpcError) -> bool:
    trailing = error.trailing_metadata() if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else None
    return any(key == DETAILS_KEY for key, _ in trailing or ())
