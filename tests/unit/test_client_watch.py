"""What a watch does about everything that can happen to its stream."""

from __future__ import annotations

import random

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from curation.v1 import curation_pb2 as pb
from curation_client.requests import retry_request, status_request, watch_request
from curation_client.watch import TIMEOUTS_MAX, Backoff, SnapshotStart, Update, WatchState


def state(**options: object) -> WatchState:
    request = watch_request("places", **options)  # type: ignore[arg-type]
    return WatchState(request, backoff=Backoff(first_s=1, longest_s=8), dice=random.Random(1))


def error(code: grpc.StatusCode, details: str | None = None, *trailing: tuple[str, bytes]) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(*trailing), details=details)


def heartbeat(token: str) -> pb.WatchStatusResponse:
    return pb.WatchStatusResponse(resume_token=token, heartbeat=pb.Heartbeat())


SNAPSHOT = pb.WatchStatusResponse(snapshot=pb.ItemsSnapshot(items=[pb.Item(id="1")]))
SNAPSHOT_END = pb.WatchStatusResponse(resume_token="t1", snapshot_end=pb.SnapshotEnd(item_count=1))
EVENTS = pb.WatchStatusResponse(resume_token="t2", events=pb.StatusEvents(events=[pb.StatusEvent(item_id="1")]))


def parts(updates: list[Update]) -> list[object]:
    return [update.part for update in updates]


def test_a_lost_stream_goes_on_from_the_last_token() -> None:
    watch = state()
    watch.received(EVENTS)
    assert watch.lost(error(grpc.StatusCode.UNAVAILABLE)) is not None
    assert watch.request.resume_token == "t2"


def test_a_heartbeat_is_hidden_and_its_token_kept() -> None:
    watch = state()
    assert watch.received(heartbeat("t9")) == []
    assert watch.request.resume_token == "t9"


def test_a_snapshot_is_announced_once_and_again_when_it_starts_again() -> None:
    watch = state()
    assert parts(watch.received(SNAPSHOT)) == [SnapshotStart(), SNAPSHOT.snapshot]
    assert parts(watch.received(SNAPSHOT)) == [SNAPSHOT.snapshot]
    watch.lost(error(grpc.StatusCode.UNAVAILABLE))
    assert watch.request.resume_token == ""
    assert parts(watch.received(SNAPSHOT)) == [SnapshotStart(), SNAPSHOT.snapshot]
    assert parts(watch.received(SNAPSHOT_END)) == [SNAPSHOT_END.snapshot_end]
    assert watch.request.resume_token == "t1"


def test_an_empty_snapshot_is_announced_too() -> None:
    assert parts(state().received(SNAPSHOT_END)) == [SnapshotStart(), SNAPSHOT_END.snapshot_end]


def test_an_expired_token_falls_back_to_a_snapshot_at_once() -> None:
    watch = state(resume_token="old", skip_snapshot=True)
    assert watch.lost(error(grpc.StatusCode.OUT_OF_RANGE)) == 0.0
    assert (watch.request.resume_token, watch.request.skip_snapshot) == ("", False)


def test_out_of_range_without_a_token_is_raised() -> None:
    with pytest.raises(grpc.RpcError):
        state().lost(error(grpc.StatusCode.OUT_OF_RANGE))


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED]
)
def test_what_another_try_cannot_mend_is_raised(code: grpc.StatusCode) -> None:
    with pytest.raises(grpc.RpcError):
        state().lost(error(code))


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN])
def test_what_a_proxy_breaks_off_goes_on_and_what_it_or_the_service_refuses_is_raised(code: grpc.StatusCode) -> None:
    watch, details = state(), ("grpc-status-details-bin", b"")
    for _ in range(2):
        assert watch.lost(error(code, "Stream removed")) is not None
    for refused in (error(code, "Received http2 header with status: 413"), error(code, None, details)):
        with pytest.raises(grpc.RpcError):
            watch.lost(refused)


@pytest.mark.parametrize(
    "which", ["SERVER: Received message larger than max (9 vs. 8)", "Sent message larger than max"]
)
def test_a_message_that_grpc_finds_too_large_is_raised_and_a_service_that_is_busy_is_asked_again(which: str) -> None:
    with pytest.raises(grpc.RpcError):
        state().lost(error(grpc.StatusCode.RESOURCE_EXHAUSTED, which))
    assert state().lost(error(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watches")) is not None
    assert state().lost(error(grpc.StatusCode.RESOURCE_EXHAUSTED)) is not None


def test_a_service_that_never_answered_is_waited_for_only_when_asked_to() -> None:
    request = watch_request("places")
    watch = WatchState(request, backoff=Backoff(), dice=random.Random(1), wait_for_ready=False)
    opened = [watch.wait_for_ready]
    for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN):
        with pytest.raises(grpc.RpcError):
            watch.lost(error(code))
    watch.received(heartbeat("t1"))
    assert [*opened, watch.wait_for_ready] == [False, True]
    assert watch.lost(error(grpc.StatusCode.UNAVAILABLE)) is not None


def test_a_service_with_which_there_is_no_tls_is_not_waited_for() -> None:
    with pytest.raises(grpc.RpcError):
        state().lost(error(grpc.StatusCode.UNAVAILABLE, "Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL"))
    assert state().lost(error(grpc.StatusCode.UNAVAILABLE, "Handshake read failed (Socket closed)")) is not None


def test_a_stream_that_ends_in_order_ends_the_watch_only_when_that_was_asked_for() -> None:
    assert state(batch_id="1", end_when_done=True).lost(None) is None
    assert state().lost(None) is not None


def test_waits_grow_to_a_limit_and_a_message_resets_them() -> None:
    watch = state()
    waits = [watch.lost(error(grpc.StatusCode.UNAVAILABLE)) or 0.0 for _ in range(200)]
    assert waits[0] <= 1
    assert 4 < max(waits) <= 8
    watch.received(heartbeat("t"))
    assert (watch.lost(error(grpc.StatusCode.UNAVAILABLE)) or 0.0) <= 1


def test_a_snapshot_that_a_timeout_ends_each_time_is_given_up_and_a_token_is_a_new_start() -> None:
    late, watch = error(grpc.StatusCode.DEADLINE_EXCEEDED), state()
    for _ in range(2):
        for _ in range(TIMEOUTS_MAX - 1):
            watch.received(SNAPSHOT)
            assert watch.lost(late) is not None
        watch.received(SNAPSHOT_END)
    for _ in range(TIMEOUTS_MAX - 1):
        assert watch.lost(late) is not None
        assert watch.lost(error(grpc.StatusCode.UNAVAILABLE)) is not None
    with pytest.raises(grpc.RpcError) as raised:
        watch.lost(late)
    assert raised.value is late


def test_the_request_of_the_caller_is_not_changed() -> None:
    request = watch_request("places")
    WatchState(request, backoff=Backoff(), dice=random.Random(1)).received(EVENTS)
    assert request == watch_request("places")


def test_a_request_names_itself_so_that_a_repeated_attempt_is_one_call() -> None:
    one, other = (status_request("places", "New", ids=["1"]) for _ in range(2))
    assert one.request_id
    assert one.request_id != other.request_id


@pytest.mark.parametrize("options", [{}, {"ids": ["1"], "filter": "a = 1"}])
def test_items_are_named_in_exactly_one_way(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="one of the two"):
        status_request("places", "New", **options)  # type: ignore[arg-type]


def test_expected_versions_go_with_their_ids() -> None:
    request = status_request("places", "New", ids=["1", "2"], expected_versions=[5, 6])
    assert [(entry.id, entry.expected_version) for entry in request.items.entries] == [("1", 5), ("2", 6)]
    with pytest.raises(ValueError, match="zip"):
        status_request("places", "New", ids=["1", "2"], expected_versions=[5])


def several(*numbers: int, token: str = "") -> list[pb.WatchStatusResponse]:
    """Messages of one change, of which the last has the token."""
    events = [pb.StatusEvents(events=[pb.StatusEvent(item_id=str(number))]) for number in numbers]
    return [pb.WatchStatusResponse(events=each, resume_token=token * (each is events[-1])) for each in events]


def test_a_change_that_is_cut_off_between_its_messages_is_seen_once_and_whole() -> None:
    watch = state(resume_token="t0")
    first, second, last = several(1, 2, 3, token="t3")
    assert watch.received(first) == watch.received(second) == []
    watch.lost(error(grpc.StatusCode.UNAVAILABLE))
    assert watch.request.resume_token == "t0"
    assert [watch.received(first), watch.received(second)] == [[], []]
    updates = watch.received(last)
    assert parts(updates) == [first.events, second.events, last.events]
    assert [update.resume_token for update in updates] == ["", "", "t3"]


def test_before_the_first_token_nothing_is_held_since_a_snapshot_would_come_again() -> None:
    watch = state()
    watch.received(SNAPSHOT)
    watch.received(pb.WatchStatusResponse(snapshot_end=pb.SnapshotEnd(item_count=1)))
    assert parts(watch.received(several(1, 2)[0])) == [several(1)[0].events]


def test_the_state_of_the_workflow_is_passed_on() -> None:
    state = pb.WorkflowState(resource="places", paused=True)
    told = WatchState(watch_request("places"), backoff=Backoff(), dice=random.Random(1)).received(
        pb.WatchStatusResponse(resume_token="t", workflow=state)
    )
    assert told == [Update(state, "t")]


@pytest.mark.parametrize("options", [{}, {"ids": ["1"], "batch_id": "1"}, {"filter": "a = 1", "failure_group_id": "1"}])
def test_what_is_retried_is_named_in_exactly_one_way(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="one of the four"):
        retry_request("places", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"ids": ["1"]}, {"filter": "a = 1"}, {"batch_id": "1"}, {"failure_group_id": "1"}])
def test_a_retry_takes_one_way_and_names_itself(options: dict[str, object]) -> None:
    request = retry_request("places", priority=pb.BATCH_PRIORITY_LOW, **options)  # type: ignore[arg-type]
    assert [request.WhichOneof("selection")] == list(options)
    assert request.priority == pb.BATCH_PRIORITY_LOW
    assert request.request_id
