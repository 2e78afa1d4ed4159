"""`parcels`: a workflow whose source has a column of every type that a filter, an order or a message may meet."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from shared.workflow import Curation, Limits, QueueColumns, Workflow, item_columns

metadata = MetaData()
curation = Curation(
    initial="New",
    transitions={
        "New": ("Selected", "Scan", "Archived"),
        "Selected": ("New", "Scan", "Archived"),
        "Scan": ("Selected", "Archived"),
        "Archived": ("New",),
    },
    triggers=frozenset({"Scan"}),
)
queue = QueueColumns.named("scan")
parcels = Table(
    "parcels",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("name", Text, nullable=False),
    Column("note", Text),
    Column("size", Integer),
    Column("floor", SmallInteger),
    Column("serial", BigInteger, nullable=False, server_default=text("0")),
    Column("price", Numeric(12, 2)),
    Column("weight", Float),
    Column("slope", REAL),
    Column("fragile", Boolean),
    Column("sent_at", DateTime(timezone=True)),
    Column("local_time", DateTime),
    Column("due", Date),
    Column("colour", Enum("red", "green", name="parcel_colour")),
    Column("details", JSONB),
    Column("tags", ARRAY(Text)),
    Column("label", LargeBinary),
    *item_columns(curation, queue),
)
parcel_details = Table("parcel_details", metadata, Column("code", Text, primary_key=True))
PARCELS = Workflow(
    resource="parcels",
    source=parcels,
    target=parcel_details,
    target_key="code",
    curation=curation,
    queue=queue,
    enricher="tests.support.parcels:never",
    limits=Limits(attempts_max=3),
)
