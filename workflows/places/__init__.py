"""Places from an import are curated; the chosen ones are looked up at Google Places and become local businesses."""

from __future__ import annotations

from shared.workflow import Limits, Workflow
from workflows.local_businesses.models import local_businesses
from workflows.places.models import curation, places_staging, queue

__all__ = ["workflow"]

workflow = Workflow(
    resource="places",
    source=places_staging,
    target=local_businesses,
    target_key="place_id",
    curation=curation,
    queue=queue,
    enricher="workflows.places.enricher:enrich",
    limits=Limits(attempts_max=5, timeout_s=20, concurrency=50, backoff_s=0.5, backoff_max_s=60),
)
"""`places`, enriched by the details of Google Places."""
