"""Every write to the target is written down by a trigger: what was saved is held against the log and against the calls.

So a value that was saved twice, or by somebody whose item it no longer was, is found, though the row looks well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from shared.db.engine import Connection
from tests.support.flaky_api import FlakyApi
from tests.support.ledger import Ledger

NOTED = """
CREATE TABLE receipt (xid xid8 NOT NULL, place_id text NOT NULL, name text);
CREATE FUNCTION note_receipt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO receipt VALUES (pg_current_xact_id(), NEW.place_id, NEW.name);
    RETURN NULL;
END $$;
CREATE TRIGGER note_receipt AFTER INSERT OR UPDATE ON local_businesses FOR EACH ROW EXECUTE FUNCTION note_receipt();
"""
_COMPLETED = """
WITH told AS (
    SELECT e.kind, e.xid::text AS xid, e.at, i.item, i.version
    FROM status_event e CROSS JOIN LATERAL unnest(e.items, e.versions) AS i (item, version)
    WHERE e.resource = 'places' AND e.kind IN ('claim', 'complete')
)
SELECT done.xid, s.external_id, extract(epoch FROM claimed.at)::float8
FROM told done
JOIN told claimed ON claimed.kind = 'claim' AND claimed.item = done.item AND claimed.version = done.version - 1
JOIN places_staging s ON s.id::text = done.item
WHERE done.kind = 'complete'"""


@dataclass(frozen=True, slots=True)
class Receipt:
    """One value that was saved."""

    xid: str
    place: str
    call: str
    """The number of the call that brought it."""


NEAR_S = 1.0
"""So far from the end of a transaction, at most, is a call that was made under its claim."""
Completed: TypeAlias = Mapping[tuple[str, str], float]
"""By transaction and place, when the item was claimed under the version that was completed."""


async def note(connection: Connection) -> None:
    """From now on."""
    await connection.execute(NOTED)


async def unreceipted(connection: Connection, api: FlakyApi, ledger: Ledger, cuts_s: Sequence[float] = ()) -> list[str]:
    """What is wrong with what was saved, and with the number of calls that were made.

    `cuts_s` says when transactions were ended from outside, since 1970.
    """
    cursor = await connection.execute("SELECT xid::text, place_id, name FROM receipt")
    receipts = [Receipt(*row) for row in await cursor.fetchall()]
    cursor = await connection.execute(_COMPLETED)
    completed = {(xid, place): claimed_s for xid, place, claimed_s in await cursor.fetchall()}
    keys = dict(await (await connection.execute("SELECT external_id, id::text FROM places_staging")).fetchall())
    return [*_saved(receipts, completed), *_brought(receipts, completed, api), *_called(api, keys, ledger, cuts_s)]


def _saved(receipts: Sequence[Receipt], completed: Completed) -> Iterator[str]:
    """Saved by the transaction that completed the item, and by no other; once."""
    saved = Counter((receipt.xid, receipt.place) for receipt in receipts)
    for (xid, place), count in saved.items():
        if (xid, place) not in completed or count > 1:
            yield f"transaction {xid} saved {place} {count} times, and completed it: {(xid, place) in completed}"
    for xid, place in completed.keys() - saved.keys():
        yield f"transaction {xid} completed {place}, and did not save it"


def _brought(receipts: Sequence[Receipt], completed: Completed, api: FlakyApi) -> Iterator[str]:
    """Each value is what a call for its place, made under this claim, was answered; no answer is saved twice."""
    for receipt in receipts:
        call = api.calls[int(receipt.call)]
        if not call.is_answered or call.place != receipt.place:
            yield f"{receipt} is no answer of the API: {call}"
        if call.at_s < completed.get((receipt.xid, receipt.place), 0.0):
            yield f"{receipt} was brought by {call}, before the item was claimed under the version that was completed"
    for number, count in Counter(receipt.call for receipt in receipts).items():
        if count > 1:
            yield f"the answer to call {number} was saved {count} times"


def _called(api: FlakyApi, keys: Mapping[str, str], ledger: Ledger, cuts_s: Sequence[float]) -> Iterator[str]:
    """For no place more often than it was claimed, but for calls whose claim was not committed as it was cut."""
    near = Counter(call.place for call in api.calls if any(abs(call.at_s - cut_s) < NEAR_S for cut_s in cuts_s))
    for place, calls in api.counts().items():
        claims = ledger.accounts[keys[place]].claims
        if calls > claims + near[place]:
            yield f"{place} was asked for {calls} times, and claimed {claims} times"
