"""Local businesses are curated in turn; of the approved ones the website is read, and kept in short."""

from __future__ import annotations

from shared.workflow import Limits, Workflow
from workflows.local_businesses.models import curation, local_businesses, queue, websites

__all__ = ["workflow"]

workflow = Workflow(
    resource="local_businesses",
    source=local_businesses,
    target=websites,
    target_key="business_id",
    curation=curation,
    queue=queue,
    enricher="workflows.local_businesses.enricher:enrich",
    limits=Limits(
        attempts_max=3,
        timeout_s=60,
        concurrency=20,
        key_concurrency=2,
        breaker_failures=None,
        backoff_s=2,
        backoff_max_s=600,
    ),
    api="website",
)
"""`local_businesses`, enriched by what their websites say."""
