"""A page token carries any value of any column exactly, and works for its own query alone."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC
from typing import Any
from uuid import UUID

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.v1 import curation_pb2 as pb
from curation_service.fields import item_table
from curation_service.item_requests import read_list_items
from curation_service.page_tokens import read_page_token, write_page_token
from shared.errors import InvalidRequest
from shared.registry import Registry
from tests.support.batches import update
from tests.support.parcels import PARCELS
from tests.support.service import RunningService, add_parcels, refusal

pytestmark = pytest.mark.untraced

FIELDS = item_table(PARCELS).fields
TEXTS = st.text(st.characters(exclude_characters="\0", codec="utf-8"))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "id": st.uuids(),
    "name": TEXTS,
    "size": st.integers(-(2**31), 2**31 - 1),
    "floor": st.integers(-(2**15), 2**15 - 1),
    "serial": st.integers(-(2**63), 2**63 - 1),
    "price": st.decimals(allow_nan=False, places=2, min_value=-(10**10), max_value=10**10),
    "weight": st.floats(allow_nan=False),
    "slope": st.floats(width=32, allow_nan=False),
    "fragile": st.booleans(),
    "sent_at": st.datetimes(timezones=st.just(UTC)),
    "local_time": st.datetimes(),
    "due": st.dates(),
    "colour": st.sampled_from(["red", "green"]),
    "queue_status": st.sampled_from(["queued", "processing", "completed", "failed"]),
}
places = st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=6, unique=True).flatmap(
    lambda names: st.tuples(st.just(names), st.tuples(*(st.none() | VALUES[name] for name in names)))
)
queries = st.lists(TEXTS, max_size=4).map(tuple)


@given(places, queries)
def test_a_token_gives_back_the_values_it_was_written_with(
    place: tuple[list[str], tuple[Any, ...]], query: Any
) -> None:
    names, values = place
    kinds = [FIELDS[name].kind for name in names]
    assert read_page_token(write_page_token(query, kinds, values), query, kinds, nullable=True) == values


@given(place=places, query=queries, other=queries)
def test_a_token_of_another_query_is_refused(place: tuple[list[str], tuple[Any, ...]], query: Any, other: Any) -> None:
    names, values = place
    kinds = [FIELDS[name].kind for name in names]
    if query != other:
        with pytest.raises(InvalidRequest):
            read_page_token(write_page_token(query, kinds, values), other, kinds)


@given(st.data())
def test_a_changed_token_is_refused(data: st.DataObject) -> None:
    kinds = [FIELDS["name"].kind, FIELDS["id"].kind]
    token = write_page_token(["q"], kinds, ["a name", data.draw(st.uuids())])
    at = data.draw(st.integers(0, len(token) - 1))
    changed = (
        token[:at] + data.draw(st.sampled_from("A_-*= é").filter(lambda sign: sign != token[at])) + token[at + 1 :]
    )
    skipped = token[:at] + "****" + token[at:]  # read as if they were not there
    for wrong in (changed, token[:at], token + "A", skipped):
        with pytest.raises(InvalidRequest):
            read_page_token(wrong, ["q"], kinds)


@given(st.text())
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        read_page_token(text, ["q"], [FIELDS["id"].kind])


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_a_token_that_somebody_made_up_with_its_digest_is_refused_or_read(value: Any) -> None:
    made_up = replace(FIELDS["size"].kind, render=lambda _: value)
    token = write_page_token(["q"], [made_up], [0])
    try:
        (read,) = read_page_token(token, ["q"], [FIELDS["size"].kind])
    except InvalidRequest:
        return
    assert read is None or isinstance(read, int)


AS_IT_IS = replace(FIELDS["name"].kind, render=lambda value: value)


@pytest.mark.parametrize("values", [["\ud800"], [], ["a", "b"]], ids=["half a surrogate pair", "too few", "too many"])
def test_a_made_up_place_that_no_list_has_is_refused(values: list[str]) -> None:
    with pytest.raises(InvalidRequest):
        read_page_token(forged(["q"], *values), ["q"], [AS_IT_IS])


YEARS = ("2026", "2024", "0000", "0001", "0044", "4713", "4714", "4715", "9999", "10000", "294276", "294277", "5874898")
DAYS = ("04-21", "02-30", "02-29", "13-01", "00-00", "11-24", "11-23", "12-31", "1-1")
TIMES = ("", "", " 00:00:00", " 24:00:00", " 23:59:60", "T11:30:00Z", " 11:30:00.123456+00", " 11:30:00+99:99", " noon")
ANYTHING: Sequence[object] = (
    "infinity",
    "now",
    "",
    "NaN",
    "1e400",
    "9" * 30,
    "-1",
    "true",
    "\0",
    "\u0664",
    7,
    0.5,
    [],
    {},
    None,
)
MOMENTS = ("sent_at", "local_time", "due")
ROUNDS = 200


def made_up(dice: random.Random) -> Any:
    """A moment, which may be none that there is, or anything else."""
    if dice.random() < 0.2:
        return dice.choice(ANYTHING)
    return dice.choice(YEARS) + "-" + dice.choice(DAYS) + dice.choice(TIMES) + dice.choice(("", "", " BC"))


def forged(query: Sequence[str], *values: Any) -> str:
    """A token of these values, with the digest over them."""
    return write_page_token(query, [AS_IT_IS] * len(values), values)


async def answered(call: Awaitable[object]) -> str:
    """Nothing for an answer; of an INVALID_ARGUMENT the field that it is about."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.INVALID_ARGUMENT:
            raise
        ((field, _),) = refusal(error).fields
        return field
    return ""


async def test_a_forged_place_among_items_is_refused_or_read(service: RunningService) -> None:
    await add_parcels(service.database, {}, {"note": "x"})
    dice = random.Random("items")
    for name in VALUES:
        request, told = pb.ListItemsRequest(resource="parcels", order_by=name), set()
        query = read_list_items(request, Registry(PARCELS))
        for _ in range(ROUNDS if name in MOMENTS else ROUNDS // 10):
            places = [made_up(dice) for _ in query.order[:-1]]
            key = made_up(dice) if dice.random() < 0.2 else str(UUID(int=1))
            request.page_token = forged(query.scope, *places, key)
            told.add(await answered(service.stub.ListItems(request)))
        assert "page_token" in told
        assert name not in MOMENTS or "" in told


async def test_a_forged_place_in_any_other_list_is_refused_or_read(service: RunningService) -> None:
    await add_parcels(service.database, {})
    batch = (await service.stub.BatchUpdateStatus(update("Selected", 1))).batch.batch_id
    stub, dice = service.stub, random.Random("lists")
    lists: list[tuple[Callable[[Any], Any], Any, tuple[str, ...], int]] = [
        (stub.ListBatches, pb.ListBatchesRequest(), ("batches", ""), 1),
        (stub.ListBatchOutcomes, pb.ListBatchOutcomesRequest(batch_id=batch), ("outcomes", batch), 1),
        (stub.ListFailureGroups, pb.ListFailureGroupsRequest(resource="parcels"), ("failure groups", "parcels", ""), 2),
        (stub.ListWorkflows, pb.ListWorkflowsRequest(), ("workflows",), 1),
        (stub.ListWorkers, pb.ListWorkersRequest(), ("workers", "", ""), 1),
    ]
    for method, request, query, count in lists:
        tokens = [forged(query, *(made_up(dice) for _ in range(count))) for _ in range(ROUNDS // 4)]
        told = set()
        for token in [*tokens, *(forged(query, *[value] * count) for value in (None, "7", "x"))]:
            request.page_token = token
            told.add(await answered(method(request)))
        assert told == {"", "page_token"}, query
