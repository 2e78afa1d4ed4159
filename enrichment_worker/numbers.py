"""The worker's numbers for whoever watches over it, by the names under which Prometheus knows them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from enrichment_worker.keys import Keys
from enrichment_worker.lane import Lane
from enrichment_worker.pacer import Pacer
from shared.metrics import Metrics

COUNTED = {
    "done": "Completed.",
    "failed": "Failed for good.",
    "dropped": "Late results, of which nothing was saved.",
    "cancelled": "Attempts that were ended, or not begun, because their items were taken away.",
}
"""What a lane counts."""


def worker_numbers(lanes: Sequence[Lane], pacers: Iterable[Pacer], keys: Iterable[Keys]) -> Metrics:
    """All metrics of a worker."""
    metrics = Metrics()
    for lane in lanes:
        labels = {"resource": lane.workflow.resource}
        metrics.gauge("curation_items_held", "Claimed and not yet committed.", lane.held.__len__, **labels)
        metrics.gauge("curation_items_running", "With an enricher now.", lane.running.__len__, **labels)
        stuck = partial(getattr, lane, "stuck")
        metrics.gauge("curation_attempts_stuck", "Told to end, and not ended.", stuck, **labels)
        refused = partial(getattr, lane, "refused")
        description = "That the source did not allow, as a trigger of it may; they are tried again."
        metrics.counter("curation_statements_refused", description, refused, **labels)
        for name, description in COUNTED.items():
            metrics.counter(f"curation_items_{name}", description, partial(getattr, lane, name), **labels)
    for pacer in pacers:
        lapsed, resource = partial(getattr, pacer, "lapsed"), pacer.resource
        metrics.counter("curation_calls_lapsed", "Reserved, and not begun in time.", lapsed, resource=resource)
    for each in keys:
        away = partial(getattr, each, "turned_away")
        metrics.counter("curation_keys_turned_away", "Attempts that a key had no room for.", away, api=each.api)
    _of_apis(metrics, lanes)
    return metrics


def _of_apis(metrics: Metrics, lanes: Sequence[Lane]) -> None:
    for api, upstream in {lane.upstream.api: lane.upstream for lane in lanes}.items():
        broken, held_s = partial(getattr, upstream, "is_broken"), partial(getattr, upstream, "held_s")
        away = partial(getattr, upstream, "turned_away")
        metrics.gauge("curation_api_broken", "1 while the external API is down, as this worker knows.", broken, api=api)
        metrics.gauge("curation_api_held_seconds", "It asked not to be called for so long.", held_s, api=api)
        metrics.counter("curation_api_turned_away", "Attempts that did not count: it was down.", away, api=api)
