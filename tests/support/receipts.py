"""Every write to the target is written down by a trigger: what was saved is held against the log and against the calls.

So a value that was saved twice, or by somebody whose item it no longer was, is found, though the row looks well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

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
SELECT e.xid::text, s.external_id
FROM status_event e CROSS JOIN LATERAL unnest(e.items) AS i (item) JOIN places_staging s ON s.id::text = i.item
WHERE e.resource = 'places' AND e.kind = 'complete'"""


@dataclass(frozen=True, slots=True)
class Receipt:
    """One value that was saved."""

    xid: str
    place: str
    call: str
    """The number of the call that brought it."""


async def note(connection: Connection) -> None:
    """From now on."""
    await connection.execute(NOTED)


async def unreceipted(connection: Connection, api: FlakyApi, ledger: Ledger) -> list[str]:
    """What is wrong with what was saved, and with the number of calls that were made."""
    cursor = await connection.execute("SELECT xid::text, place_id, name FROM receipt")
    receipts = [Receipt(*row) for row in await cursor.fetchall()]
    completed = Counter((xid, place) for xid, place in await (await connection.execute(_COMPLETED)).fetchall())
    keys = dict(await (await connection.execute("SELECT external_id, id::text FROM places_staging")).fetchall())
    return [*_saved(receipts, completed), *_brought(receipts, api), *_called(api, keys, ledger)]


def _saved(receipts: list[Receipt], completed: Counter[tuple[str, str]]) -> Iterator[str]:
    """Saved by the transaction that completed the item, and by no other; once."""
    saved = Counter((receipt.xid, receipt.place) for receipt in receipts)
    for (xid, place), count in (saved - completed).items():
        yield f"transaction {xid} saved {place} {count} times more than it completed it"
    for (xid, place), count in (completed - saved).items():
        yield f"transaction {xid} completed {place} {count} times more than it saved it"


def _brought(receipts: list[Receipt], api: FlakyApi) -> Iterator[str]:
    """Each value is what one call for this place was answered, and no answer was saved twice."""
    for receipt in receipts:
        number = int(receipt.call)
        if number not in api.answered or api.calls[number] != receipt.place:
            yield f"{receipt} is no answer of the API"
    for call, count in Counter(receipt.call for receipt in receipts).items():
        if count > 1:
            yield f"the answer to call {call} was saved {count} times"


def _called(api: FlakyApi, keys: Mapping[str, str], ledger: Ledger) -> Iterator[str]:
    """For no place more often than it was claimed."""
    for place, calls in api.counts().items():
        claims = ledger.accounts[keys[place]].claims
        if calls > claims:
            yield f"{place} was asked for {calls} times, and claimed {claims} times"
