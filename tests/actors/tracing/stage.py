"""A supervisor whose requests are traced, and the spans that the in-memory exporter of OpenTelemetry has taken."""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from actors import Market, Supervisor, smart_request
from actors.supervisor import RequestOptions
from actors.tracing import Tracing
from runtime import ActorSystem
from tests.actors.supervisor.stage import STEADY

sdk: Any = pytest.importorskip("opentelemetry.sdk.trace")
exporting: Any = import_module("opentelemetry.sdk.trace.export")
in_memory: Any = import_module("opentelemetry.sdk.trace.export.in_memory_span_exporter")

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from actors import Listing


class Traced:
    """A supervisor, the program's own tracer, and what was recorded."""

    def __init__(self, *, sampler: Any = None, **options: Any) -> None:
        self.exporter = in_memory.InMemorySpanExporter()
        self.provider = sdk.TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(exporting.SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("program")
        self.tracing = Tracing(provider=self.provider, **options)
        self.ref: Any = None

    @property
    def spans(self) -> list[Any]:
        """The spans that have ended, the first to begin first."""
        return sorted(
            self.exporter.get_finished_spans(), key=lambda one: (one.start_time, one.parent is not None, one.end_time)
        )

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.spans]

    def named(self, beginning: str) -> list[Any]:
        return [one for one in self.spans if one.name.startswith(beginning)]

    @staticmethod
    def part_of(headers: dict[str, str]) -> dict[str, Any]:
        """Return the options of a request that is part of a trace."""
        return {"options": RequestOptions(trace=headers)}

    async def request(self, **options: Any) -> Any:
        return await smart_request(self.ref, **{"service": "s", "input": "x", "strategy": "cheapest"} | options)


@asynccontextmanager
async def traced(
    *listings: Listing,
    tracing: dict[str, Any] | None = None,
    stage: Traced | None = None,
    system: dict[str, Any] | None = None,
    **policies: Any,
) -> AsyncIterator[Traced]:
    stage = stage or Traced(**(tracing or {}))
    async with ActorSystem("traced", seed=1, log=False, **(system or {})) as of_actors:
        market = Market(providers=listings, **{"retry": STEADY} | policies)
        stage.ref = of_actors.spawn(lambda: Supervisor(market, tracing=stage.tracing), name="supervisor")
        yield stage


def seconds(span: Any) -> float:
    return (span.end_time - span.start_time) / 1e9


def own(span: Any) -> dict[str, Any]:
    """Return the attributes of a span, with our own names shortened."""
    return {name.removeprefix("understudy."): value for name, value in span.attributes.items()}
