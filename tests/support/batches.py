"""Requests that set a status on parcels, and all that such a request may write."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import Table, func, select

from curation.v1 import curation_pb2 as pb
from shared.db.engine import Database
from shared.db.models import batch_outcome, status_batch, status_event
from tests.support.parcels import parcels


def parcel_id(number: int) -> str:
    """The id of the parcel with this number."""
    return str(uuid.UUID(int=number))


def update(status: str, *numbers: int, **fields: Any) -> pb.BatchUpdateStatusRequest:
    """Sets a status on parcels by number, or as `fields` select."""
    chosen = {"ids": pb.ItemIds(ids=map(parcel_id, numbers))} if numbers else {}
    return pb.BatchUpdateStatusRequest(resource="parcels", status=status, **chosen | fields)


def with_version(number: int, version: int) -> dict[str, Any]:
    """The fields that select one parcel, if it has this version."""
    entry = pb.ItemSelection.Entry(id=parcel_id(number), expected_version=version)
    return {"items": pb.ItemSelection(entries=[entry])}


async def everything(database: Database, source: Table = parcels) -> tuple[object, ...]:
    """All that a batch may write, except the numbers that sequences gave away."""
    async with database.core() as connection:
        counts = [
            await connection.scalar(select(func.count()).select_from(table))
            for table in (status_batch, batch_outcome, status_event)
        ]
        rows = await connection.execute(select(source).order_by(*source.primary_key))
        return [row._asdict() for row in rows], counts
