"""The table of local businesses, the table of their websites, and the states a curator may give a business."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Identity, Integer, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from shared.workflow import Curation, QueueColumns, item_columns

curation = Curation(
    initial="Fresh",
    column="state",
    transitions={
        "Fresh": ("Approved", "ReadWebsite", "Parked", "Rejected"),
        "Approved": ("ReadWebsite", "Parked", "Rejected"),
        "ReadWebsite": ("Approved", "Parked", "Rejected"),
        "Parked": ("Fresh", "Approved", "Rejected"),
        "Rejected": ("Fresh",),
    },
    triggers=frozenset({"ReadWebsite"}),
)
"""What is rejected or parked has to come back before its website is read."""

queue = QueueColumns.named("website")

local_businesses = Table(
    "local_businesses",
    MetaData(),
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("place_id", Text, nullable=False, unique=True),
    Column("name", Text),
    Column("address", Text),
    Column("latitude", Float),
    Column("longitude", Float),
    Column("website", Text),
    Column("phone", Text),
    Column("types", JSONB),
    Column("business_status", Text),
    Column("rating", Float),
    *item_columns(curation, queue),
)
"""What Google Places says of a place; filled by the enrichment of places."""

websites = Table(
    "websites",
    MetaData(),
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("business_id", BigInteger, nullable=False, unique=True),
    Column("url", Text, nullable=False),
    Column("http_status", Integer, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("title", Text),
    Column("description", Text),
    Column("emails", JSONB, nullable=False),
    Column("sitemap_links", JSONB, nullable=False),
)
"""What a business's website says, where it ended up after redirects."""
