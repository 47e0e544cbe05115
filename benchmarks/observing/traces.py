"""What traces cost: a smart request of which one in a hundred is recorded, and each span beside a bare one."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from actors import Supervisor, smart_request
from actors.tracing import Tracing
from benchmarks.harness import Row, ratio_row
from benchmarks.observing.paired import cpu_of_each
from benchmarks.resilience.calls import no_op_market, nothing
from runtime import ActorSystem

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.observing.paired import Operation

SAMPLE = 0.01
SPANS = 2
"""The spans of a request that is answered by its first call and waits for nothing."""
AT_FIRST = {"understudy.request_id": "r-1", "understudy.service": "benchmark", "understudy.account": "run"}
OF_CALL = {"understudy.provider": "alder", "understudy.attempt": 1, "understudy.reserved": 1}
AT_END_OF_CALL = {"understudy.cost": 1, "understudy.held": 0}
AT_ITS_END = {
    "understudy.attempts": 1,
    "understudy.held": 0,
    "understudy.outcome": "done",
    "understudy.provider": "alder",
    "understudy.cost": 1,
}


def tracer_provider() -> Any:
    """Return one whose spans are recorded, and exported nowhere: what that costs is the exporter's."""
    return import_module("opentelemetry.sdk.trace").TracerProvider(shutdown_on_exit=False)


@asynccontextmanager
async def requests(tracing: Tracing | None) -> AsyncGenerator[Operation]:
    """Enter a system that serves smart requests; yields one of them."""
    async with ActorSystem("benchmark", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(no_op_market(), tracing=tracing), name="supervisor")
        yield lambda: smart_request(supervisor, service="benchmark", input=nothing, budget="0.20", health_check=True)


def by_hand(tracer: Any, request: Operation) -> Operation:
    """Return a request with as many spans and attributes, made as a program does by hand with OpenTelemetry's API.

    Beside the same request, because a span in a loop of its own finds all that it needs in the caches.
    """

    async def traced() -> None:
        with (
            tracer.start_as_current_span("request benchmark", attributes=AT_FIRST) as outer,
            tracer.start_as_current_span("call alder", attributes=OF_CALL) as inner,
        ):
            await request()
            inner.set_attributes(AT_END_OF_CALL)
            outer.set_attributes(AT_ITS_END)

    return traced


async def traces(turns: int, calls: int) -> list[Row]:
    """Return the rows."""
    provider = tracer_provider()
    kinds = [None, Tracing(sample=SAMPLE, provider=provider), Tracing(provider=provider)]
    tracer = provider.get_tracer("benchmark")
    async with AsyncExitStack() as stack:
        operations = [await stack.enter_async_context(requests(tracing)) for tracing in kinds]
        operations.append(by_hand(tracer, operations[0]))
        off, sampled, full, bare = await cpu_of_each(operations, turns=turns, calls=calls)
    return [
        ratio_row("traces: of one request in a hundred", sampled, off, "µs", "without", "<= 1.02"),
        ratio_row("traces: each span", (full - off) / SPANS, (bare - off) / SPANS, "µs", "made by hand", "<= 1.3"),
    ]
