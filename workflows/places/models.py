"""The table of imported places, and which statuses a curator may give them."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, Float, MetaData, Table, Text, Uuid, func

from shared.workflow import Curation, QueueColumns, item_columns

curation = Curation(
    initial="New",
    transitions={
        "New": ("Selected", "SelectedForDeepScan", "Maintenance", "NotAFit", "Archived"),
        "Selected": ("New", "SelectedForDeepScan", "Maintenance", "NotAFit", "Archived"),
        "SelectedForDeepScan": ("Selected", "Maintenance", "NotAFit", "Archived"),
        "Maintenance": ("New", "Selected", "SelectedForDeepScan", "Archived"),
        "NotAFit": ("New", "Archived"),
        "Archived": ("New",),
    },
    triggers=frozenset({"SelectedForDeepScan"}),
)
"""What is not a fit, or archived, has to be made new again before anybody pays for a look at it."""

queue = QueueColumns.named("deep_scan")

places_staging = Table(
    "places_staging",
    MetaData(),
    Column("id", Uuid, primary_key=True),
    Column("external_id", Text, nullable=False, unique=True),
    Column("code", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("city", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("country", Text, nullable=False),
    Column("latitude", Float, nullable=False),
    Column("longitude", Float, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("imported_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    *item_columns(curation, queue),
)
"""Places as they were imported; `external_id` is Google's place id."""
