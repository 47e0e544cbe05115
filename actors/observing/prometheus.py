"""Metrics for Prometheus, gathered when they are asked for, from what the monitor has counted already."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from actors.monitor.metrics import Durations
from actors.observing.metric_table import BOUNDS, METRICS
from actors.observing.samples import Bounded, observe, samples_of
from runtime import RuntimeFault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from actors.observing.metric_table import Metric
    from actors.observing.samples import Value
    from runtime import ActorRef

SCRAPE_TIMEOUT = 5.0
"""Seconds that the system has to answer each question of a scrape; Prometheus waits for 10 by default."""


class PrometheusMetrics:
    """The metrics of a system in the text format of Prometheus, also as an ASGI application.

    `monitor` has counted, and `supervisor` tells the states of providers, what requests wait for, and the figures of
    the `accounts` that are named, at most 1,000, or that a function names at each time. A metric has at most 1,000
    series; what is beyond them is told as "other". `registry` is a registry of `prometheus_client` of its own, in which
    further metrics may be registered.

    It asks for no key, and tells the names of providers and accounts, and what is spent: mount it where only a scraper
    comes. Raises ImportError without the extra `metrics`.

    >>> metrics = PrometheusMetrics(monitor, supervisor, accounts=["run"])  # doctest: +SKIP
    >>> text, content_type = await metrics.scrape()  # doctest: +SKIP
    """

    def __init__(
        self,
        monitor: ActorRef[Any],
        supervisor: ActorRef[Any] | None = None,
        *,
        accounts: Sequence[str] | Callable[[], Sequence[str]] = (),
    ) -> None:
        self._client = prometheus_client()
        self.registry: Any = self._client.CollectorRegistry()
        self.registry.register(self)
        self._monitor, self._supervisor, self._accounts = monitor, supervisor, accounts
        self._bounded = Bounded()
        self._values: dict[str, dict[tuple[str, ...], Value]] = {}

    async def scrape(self, accept: str = "") -> tuple[bytes, str]:
        """Return all metrics, and their content type, in the format that a scraper accepts.

        Raises `RuntimeFault` if the system does not answer within 5 s.
        """
        accounts = self._accounts() if callable(self._accounts) else self._accounts
        observed = await observe(self._monitor, self._supervisor, accounts, within=SCRAPE_TIMEOUT)
        self._values = self._bounded.of(samples_of(observed))
        write, content_type = import_module("prometheus_client.exposition").choose_encoder(accept)
        return write(self.registry), content_type

    def collect(self) -> Iterator[Any]:
        """Yield what was gathered last, as a registry asks for it."""
        for name, metric in METRICS.items():
            values = self._values.get(name)
            if values or (values is None and not metric.labels):
                yield self._family(metric, values or {})

    def _family(self, metric: Metric, values: dict[tuple[str, ...], Value]) -> Any:
        core = self._client.core
        kinds = {
            "counter": core.CounterMetricFamily,
            "gauge": core.GaugeMetricFamily,
            "histogram": core.HistogramMetricFamily,
        }
        family = kinds[metric.kind](metric.name, metric.text, labels=metric.labels)
        for labels, value in values.items():
            if isinstance(value, Durations):
                buckets = [(str(bound), count) for bound, count in zip(BOUNDS, value.below, strict=True)]
                family.add_metric(labels, buckets=[*buckets, ("+Inf", value.count)], sum_value=value.total)
            else:
                family.add_metric(labels, value)
        return family

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a GET with all metrics."""
        if scope["type"] != "http":
            raise ValueError(f"metrics are asked for by HTTP, not by {scope['type']!r}")
        if scope["method"] not in {"GET", "HEAD"}:
            await _answer(send, 405, b"metrics are read by GET\n", "text/plain")
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        try:
            body, content_type = await self.scrape(headers.get(b"accept", b"").decode("latin-1"))
        except RuntimeFault as fault:
            await _answer(send, 503, f"the system does not answer: {fault}\n".encode(), "text/plain")
            return
        await _answer(send, 200, body, content_type)

    def __repr__(self) -> str:
        return f"<PrometheusMetrics of {self._monitor!r}>"


async def _answer(send: Any, status: int, body: bytes, content_type: str) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def prometheus_client() -> Any:
    """Return the library; raises ImportError, with what to do, if it is not installed."""
    try:
        import_module("prometheus_client.core")
        return import_module("prometheus_client")
    except ImportError as error:
        raise ImportError("metrics for Prometheus need an extra: pip install 'understudy[metrics]'") from error
