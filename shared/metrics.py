"""Numbers for whoever watches over a process: read from its parts when asked for, in Prometheus's format.

Parts keep plain numbers; the composition root says here what they are called. So no part knows of Prometheus, and a
process without `CURATION_METRICS_LISTEN` does nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from shared.errors import AddressUnavailable
from shared.lifecycle import Part
from shared.thread import in_own_thread


class Metrics(Collector):
    """The numbers of a process."""

    def __init__(self) -> None:
        self._numbers: list[tuple[Literal["gauge", "counter"], str, str, _Samples]] = []

    def gauge(self, name: str, description: str, read: _Read, **labels: str) -> None:
        """A number that goes up and down. The same name again adds a sample with other labels."""
        self._add("gauge", name, description, read, labels)

    def counter(self, name: str, description: str, read: _Read, **labels: str) -> None:
        """A number that only grows while the process lives."""
        self._add("counter", name, description, read, labels)

    def collect(self) -> Iterator[Metric]:
        """Every number, as it is now."""
        for kind, name, description, samples in self._numbers:
            family = GaugeMetricFamily if kind == "gauge" else CounterMetricFamily
            metric = family(name, description, labels=sorted(samples[0][0]))
            for labels, read in samples:
                metric.add_metric([labels[label] for label in sorted(labels)], read())
            yield metric

    def _add(
        self, kind: Literal["gauge", "counter"], name: str, description: str, read: _Read, labels: Mapping[str, str]
    ) -> None:
        for _, known, _, samples in self._numbers:
            if known == name:
                samples.append((labels, read))
                return
        self._numbers.append((kind, name, description, [(labels, read)]))


class MetricsServer(Part):
    """Serves the numbers on `http://<listen>/metrics`."""

    def __init__(self, *, metrics: Metrics, listen: str) -> None:
        """`listen` is `host:port`; a port of 0 takes any free one."""
        super().__init__()
        self._metrics, self._listen = metrics, listen
        self.port = 0
        """The port it listens on, once it is ready."""

    async def _run(self) -> None:
        host, _, port = self._listen.rpartition(":")
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self._metrics)
        try:
            server, thread = start_http_server(int(port), host.strip("[]"), registry=registry)
        except OSError as error:
            raise AddressUnavailable(self._listen, error.strerror or str(error)) from error
        try:
            self.port = server.server_port
            self.ready()
            await self.stopping.wait()
        finally:
            await in_own_thread(server.shutdown, name="end of the numbers")
            server.server_close()
            thread.join()


def metrics_parts(metrics: Metrics, listen: str | None) -> Sequence[Part]:
    """The server of the numbers, where one is asked for."""
    return [MetricsServer(metrics=metrics, listen=listen)] if listen else []


_Read = Callable[[], float]
_Samples = list[tuple[Mapping[str, str], _Read]]
