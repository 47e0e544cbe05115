"""What the recipe that this grew from says, statement by statement, and a program of ours that does it for each."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import structs

from actors import (
    BreakerConfig,
    BreakerOpen,
    BudgetExceeded,
    Bulkhead,
    CircuitBreaker,
    Discovery,
    Done,
    Limiter,
    Listing,
    Market,
    Monitor,
    Permanent,
    Retry,
    Supervisor,
    TokenBucket,
    Transient,
    batch_process,
    check_health,
    concurrent,
    discover,
    is_retryable_error,
    robust_batch,
    select_best,
    smart_request,
    with_retry,
)
from actors.batch import ItemDone
from actors.discovery.discovery import registry_of
from actors.errors.classification import classify_status
from actors.events import AlertRaised, CallEnded, RequestEnded
from actors.monitor import BudgetRule, GetMetrics, MonitorConfig
from runtime import ActorSystem
from tests.actors.seed_stage import listed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from actors import ProviderCall
    from runtime import ActorRef

STATEMENTS: dict[str, Any] = {}


def says(*statements: str) -> Callable[[Any], Any]:
    """Enter a program for statements of the recipe."""

    def enter(program: Any) -> Any:
        for one in statements:
            assert one not in STATEMENTS
            STATEMENTS[one] = program
        return program

    return enter


def now() -> float:
    return asyncio.get_running_loop().time()


class Service:
    """Raises what its script holds, in turn, and then answers."""

    def __init__(self, *script: Exception) -> None:
        self.script = list(script)
        self.began: list[float] = []

    async def __call__(self, *_: Any) -> str:
        self.began.append(now())
        if self.script:
            raise self.script.pop(0)
        return "answer"


@asynccontextmanager
async def supervising(*listings: Listing) -> AsyncIterator[tuple[ActorRef[Any], ActorSystem]]:
    async with ActorSystem("seed", seed=1, log=False) as system:
        yield system.spawn(lambda: Supervisor(Market(providers=listings))), system


def translators() -> list[Listing]:
    async def translate(call: ProviderCall) -> str:
        return f"{call.input['text']} in {call.input['target']} by {call.provider}"

    def one(name: str, price: str, reputation: float, seconds: float, languages: set[str]) -> Listing:
        facts: dict[str, Any] = {"reputation": reputation, "response_time": seconds, "capabilities": languages}
        return listed(name, translate, price=price, services={"translation"}, **facts)

    return [
        one("alder", "0.15", 95, 2.0, {"en", "de"}),
        one("birch", "0.10", 85, 0.5, {"en", "de"}),
        one("cedar", "0.05", 82, 3.0, {"en", "de"}),
        one("dogwood", "0.02", 99, 0.2, {"en", "fr"}),
        one("elm", "0.50", 99, 0.2, {"en", "de"}),
        one("fir", "0.01", 20, 0.2, {"en", "de"}),
    ]


# 1. Retry logic.


@says(
    "Robust error handling with exponential backoff",
    "withRetry wraps a request",
    "maxRetries: 3",
    "baseDelayMs: 1000",
    "retry: Exponential backoff",
    "3 retries with exponential backoff",
)
async def retries_with_backoff() -> None:
    service = Service(*[Transient("down")] * 3)
    assert await with_retry(service, max_retries=3, base=1.0, jitter="none") == "answer"
    assert service.began == [0.0, 1.0, 3.0, 7.0]
    down = Service(*[Transient("down")] * 9)
    with pytest.raises(Transient):
        await with_retry(down, max_retries=3)
    assert len(down.began) == 4


@says("maxDelayMs: 30000")
async def caps_the_wait() -> None:
    service = Service(*[Transient("down")] * 9)
    await with_retry(service, max_retries=9, base=1.0, cap=30.0, jitter="none")
    assert max(later - earlier for earlier, later in itertools.pairwise(service.began)) == 30.0


@says("jitterFactor: 0.3", "Exponential backoff with jitter", "Add jitter (20-30%) to prevent thundering herd")
async def jitters() -> None:
    waits = {Retry(jitter="proportional", proportion=0.3).delay(1, random=draw / 10) for draw in range(10)}
    assert len(waits) == 10
    assert all(0.7 <= wait <= 1.3 for wait in waits)


@says(
    "new CircuitBreaker(name, options)",
    "failureThreshold: 5",
    "resetTimeMs: 30000",
    "breaker.execute(() => request(...))",
    "breaker: Cascading failures: fail fast after threshold",
    "5 failures = open circuit",
    "30-60 second reset time",
    "resetTimeMs: 60000",
)
async def breaks_the_circuit() -> None:
    for reset in (30.0, 60.0):
        breaker = CircuitBreaker("my-service", BreakerConfig(failure_threshold=5, open_for=reset, jitter=0.0))
        service = Service(*[Transient("down")] * 5)
        for _ in range(5):
            with pytest.raises(Transient):
                await breaker.execute(service)
        with pytest.raises(BreakerOpen) as refused:
            await breaker.execute(service)
        assert (len(service.began), refused.value.retry_after) == (5, reset)
        await asyncio.sleep(reset)
        assert await breaker.execute(service) == "answer"


@says(
    "use for: unreliable network connections",
    "use for: providers with occasional failures",
    "use for: any production deployment",
    "Always use retry for network operations",
    "retry: Transient failures",
)
async def survives_occasional_failures() -> None:
    service = Service(ConnectionRefusedError("refused"), TimeoutError("timed out"), Transient("503"))
    assert await with_retry(service) == "answer"


# 2. Concurrent requests.


async def double(item: int) -> int:
    await asyncio.sleep(1.0)
    return 2 * item


@says(
    "Parallel execution with a concurrency limit",
    "concurrent(items, fn, { maxConcurrency: 5 })",
    "concurrent returns the results",
    "semaphore: too many concurrent requests: limit active operations",
    "Start conservative (5-10 concurrent)",
)
async def limits_concurrency() -> None:
    assert await concurrent(range(20), double, max_concurrency=5).results() == [2 * item for item in range(20)]
    assert now() == 4.0
    bulkhead = Bulkhead("renderer", max_concurrency=2)
    await asyncio.gather(*(bulkhead.execute(lambda: double(1)) for _ in range(4)))
    assert now() == 6.0


@says("concurrent(items, fn, { rateLimit: 5 })", "use for: rate-limited APIs", "Parallel execution with rate limiting")
async def limits_the_rate() -> None:
    began: list[float] = []

    async def note(_: int) -> None:
        began.append(now())

    await concurrent(range(11), note, max_concurrency=10, rate_limit=5).results()
    assert began[-1] == pytest.approx(2.0)


@says(
    "batchProcess(items, processBatch, 100)",
    "batch processing: large datasets: process in chunks",
    "use for: processing large datasets",
    "use for: bulk operations (translations, analysis)",
)
async def processes_batches() -> None:
    sizes: list[int] = []

    async def save(items: Sequence[int]) -> None:
        sizes.append(len(items))

    outcomes = await batch_process(range(250), save, 100)
    assert (sizes, len(outcomes), {type(one) for one in outcomes}) == ([100, 100, 50], 250, {ItemDone})


@says("onProgress: (done, total) => ...", "use for: progress tracking for long jobs")
async def tells_progress() -> None:
    told: list[str] = []

    async def show(finished: int, total: int | None) -> None:
        told.append(f"{finished}/{total}")

    await concurrent(range(3), double, on_progress=lambda finished, total: told.append(f"{finished}/{total}"))
    async with (
        supervising(listed("alder")) as (supervisor, _),
        robust_batch(supervisor, range(2), service="s", on_progress=show) as outcomes,
    ):
        assert len([one async for one in outcomes]) == 2
    assert told == ["1/3", "2/3", "3/3", "1/2", "2/2"]


@says(
    "rate limiter: API quotas: token bucket algorithm", "Use token bucket algorithm", "use for: respecting rate limits"
)
async def takes_tokens() -> None:
    limiter = Limiter("geocoder", rate=5.0, burst=2)
    for _ in range(7):
        await limiter.acquire()
    assert now() == pytest.approx(1.0)
    assert TokenBucket(rate=5.0, burst=2).reserve(0.0)[1].at == 0.0


# 3. Provider discovery.


@says(
    "Find and select the best providers",
    "discovery.discover({ service })",
    "maxPrice: 0.20",
    "minReputation: 80",
    "requiredCapabilities: ['en', 'de']",
    "new ProviderDiscovery(registry)",
    "discovery: finding the best provider: filter + select strategy",
)
async def discovers() -> None:
    async with ActorSystem("seed", log=False) as system:
        discovery = system.spawn(lambda: Discovery(registry_of(Market(providers=translators()))))
        found = await discover(
            discovery, service="translation", max_price="0.20", min_reputation=80, required_capabilities=["en", "de"]
        )
    assert [one.name for one in found] == ["alder", "birch", "cedar"]


@says(
    "selectBest(providers, 'best')",
    "selectBest(providers, 'cheapest')",
    "selectBest(providers, 'fastest')",
    "strategy: 'balanced'",
)
async def selects() -> None:
    providers = [one.provider for one in translators()[:3]]
    assert select_best(providers, "best").name == "alder"
    assert select_best(providers, "cheapest").name == "cedar"
    assert select_best(providers, "fastest").name == "birch"
    assert select_best(providers, "balanced") in providers


@says(
    "smartRequest(discovery, { service, input })",
    "budget: 1.0",
    "strategy: 'best'",
    "fallbackStrategies: ['balanced', 'cheapest']",
    "healthCheck: true",
    "use for: multi-provider environments",
    "use for: cost optimization",
    "use for: quality requirements",
)
async def requests_smartly() -> None:
    async with supervising(*translators()) as (supervisor, _):
        options: dict[str, Any] = {"fallback_strategies": ["balanced", "cheapest"], "health_check": True}
        text = {"text": "Hello", "target": "de"}
        request: dict[str, Any] = {"service": "translation", "input": text, "budget": "1.0", **options}
        best = await smart_request(supervisor, strategy="best", **request)
        cheap = await smart_request(supervisor, strategy="cheapest", **request)
    assert best.output.startswith("Hello in de by")
    assert (cheap.provider, str(cheap.cost)) == ("fir", "$0.01")


@says(
    "Smart request with fallback",
    "fallback chain: primary fails: try alternative strategies",
    "use for: high availability needs",
)
async def falls_back() -> None:
    down = Service(*[Transient("503", outcome="not_started")] * 9)
    async with supervising(listed("alder", down, reputation=90), listed("birch")) as (supervisor, _):
        result = await smart_request(supervisor, service="s", input="x", strategy="best", timeout=5.0)
    assert (result.provider, [one.provider for one in result.failures]) == ("birch", ["alder"])


@says(
    "health check: unhealthy providers: ping before request",
    "Health check before critical requests",
)
async def checks_health() -> None:
    async def sick(_: float) -> None:
        raise Transient("no answer to a ping")

    alder = listed("alder", reputation=90, check=sick)
    async with supervising(alder, listed("birch")) as (supervisor, _):
        result = await smart_request(supervisor, service="s", input="x", health_check=True)
        assert (result.provider, result.attempts) == ("birch", 1)
        assert not (await check_health(supervisor, "alder")).is_healthy


@says("Cache provider information", "Refresh every 5-15 minutes")
async def caches_providers() -> None:
    asked: list[float] = []

    async def registry(_: str) -> list[Listing]:
        asked.append(now())
        return translators()

    async with ActorSystem("seed", log=False) as system:
        discovery = system.spawn(lambda: Discovery(registry))
        for _ in range(90):
            await discover(discovery, service="translation")
            await asyncio.sleep(60.0)
    assert all(300.0 <= later - earlier <= 900.0 for earlier, later in itertools.pairwise(asked))
    assert len(asked) > 2


# 4. All of them.


@says(
    "Combine all patterns",
    "robustBatchProcess(items)",
    "concurrent around breaker around retry around smartRequest",
    "maxConcurrency: 10 and rateLimit: 5",
    "use these patterns in your own code",
)
async def combines_all() -> None:
    flaky = Service(*[Transient("503", outcome="not_started")] * 3)
    async with supervising(listed("alder", flaky, reputation=90), listed("birch")) as (supervisor, _):
        batch: dict[str, Any] = {"service": "s", "max_concurrency": 10, "rate_limit": 5, "item_budget": "1.0"}
        async with robust_batch(supervisor, range(20), health_check=True, **batch) as outcomes:
            assert [type(one) async for one in outcomes] == [Done] * 20
    assert (outcomes.summary.done, outcomes.summary.failed) == (20, 0)


# 5. Errors.


@says(
    "retryable: network timeout",
    "retryable: connection refused",
    "retryable: 503 Service Unavailable",
    "retryable: 429 Too Many Requests",
    'retryable: "temporary" in message',
)
async def retries_what_may_pass() -> None:
    for error in (TimeoutError("timed out"), ConnectionRefusedError("refused"), RuntimeError("a temporary problem")):
        assert is_retryable_error(error)
    assert all(classify_status(status, provider="alder").retryable for status in (503, 429))


@says(
    "non-retryable: invalid input",
    "non-retryable: unauthorized",
    "non-retryable: insufficient funds",
    "non-retryable: budget exceeded",
    "non-retryable: 400 Bad Request",
)
async def fails_fast() -> None:
    assert not is_retryable_error(ValueError("invalid input"))
    assert not any(classify_status(status, provider="alder").retryable for status in (400, 401, 402))
    async with supervising(listed("alder", price="0.50")) as (supervisor, _):
        with pytest.raises(BudgetExceeded) as refused:
            await smart_request(supervisor, service="s", input="x", budget="0.10", timeout=30.0)
    assert (refused.value.retryable, now()) == (False, 0.0)


# 6. Monitoring.


@says(
    "successCount",
    "failureCount",
    "totalLatencyMs",
    "totalCostUsd",
    "Request ID for tracing",
    "Timing, retries, provider selected",
    "Full error details on failure",
)
async def tells_what_happened() -> None:
    async def picky(call: ProviderCall) -> str:
        await asyncio.sleep(1.0)
        if call.input == "bad":
            raise Permanent("no such text", said="line 1")
        return "fine"

    ended: list[RequestEnded] = []
    calls: list[CallEnded] = []
    async with supervising(listed("alder", picky)) as (supervisor, system):
        system.events.subscribe(RequestEnded, ended.append)
        system.events.subscribe(CallEnded, calls.append)
        async with robust_batch(supervisor, ["x", "bad", "y"], service="s") as outcomes:
            assert len([one async for one in outcomes]) == 3
    summary = outcomes.summary
    assert (summary.finished, summary.done, summary.failed, summary.latency_mean) == (3, 2, 1, 1.0)
    assert str(summary.cost) == "$0.02"
    assert {one.request_id for one in ended} == {one.request_id for one in calls}
    assert [(one.provider, one.attempt, one.latency) for one in calls] == [("alder", 1, 1.0)] * 3
    assert [one.detail for one in ended if one.error] == ["no such text: line 1"]


@says(
    "requestCount: 0",
    "retryCount: 0",
    "circuitBreakerTrips: 0",
    "Log everything for debugging",
    "circuitOpen: true: alert immediately",
    "successRate: 0.95: alert if below",
    "avgLatencyMs: 5000: alert if above",
)
async def counts_and_alerts() -> None:
    is_down = True

    async def answer(_: ProviderCall) -> str:
        await asyncio.sleep(6.0)
        if is_down:
            raise Transient("503", outcome="not_started")
        return "fine"

    alerts: list[str] = []
    async with ActorSystem("seed", seed=1, log=False) as system:
        system.events.subscribe(AlertRaised, lambda alert: alerts.append(alert.rule))
        monitor = system.spawn(Monitor, name="monitor")
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listed("alder", answer)])))
        async with robust_batch(supervisor, range(60), service="s", timeout=20.0) as outcomes:
            assert len([one async for one in outcomes]) == 60
        is_down = False
        await asyncio.sleep(60.0)
        async with robust_batch(supervisor, range(60), service="s", timeout=60.0) as outcomes:
            assert len([one async for one in outcomes]) == 60
        total = (await monitor.ask(GetMetrics(), timeout=1.0)).total
    assert total.request_count == 120
    assert total.retry_count > 0
    assert total.circuit_breaker_trips > 0
    assert {"circuit_open", "success_rate", "latency"} <= set(alerts)


@says("budgetUsed: 0.80: alert at 80% budget")
async def alerts_of_the_budget() -> None:
    alerts: list[str] = []
    config = MonitorConfig(rules=(BudgetRule(cap="0.10"),))
    async with ActorSystem("seed", seed=1, log=False) as system:
        system.events.subscribe(AlertRaised, lambda alert: alerts.append(alert.rule))
        system.spawn(lambda: Monitor(config), name="monitor")
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listed("alder")])))
        for spent, raised in ((7, []), (1, ["budget"])):
            for _ in range(spent):
                await smart_request(supervisor, service="s", input="x")
            await asyncio.sleep(2.0)
            assert alerts == raised


@says("Leave headroom (80% of limit)", "Limit concurrency based on provider capacity", "Increase based on monitoring")
async def leaves_headroom() -> None:
    under_way = most = 0
    began: list[float] = []

    async def work(_: ProviderCall) -> str:
        nonlocal under_way, most
        began.append(now())
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(1.0)
        under_way -= 1
        return "fine"

    limited = listed("alder", work)
    limited = structs.replace(limited, rate_limit=10.0, max_concurrency=5)
    async with (
        supervising(limited) as (supervisor, _),
        robust_batch(supervisor, range(40), service="s", max_concurrency=40) as outcomes,
    ):
        assert len([one async for one in outcomes]) == 40
    assert most <= 5
    assert min(later - earlier for earlier, later in itertools.pairwise(began)) >= 1 / 8 - 1e-9


@pytest.mark.parametrize("statement", STATEMENTS)
async def test_what_the_recipe_says_is_done(statement: str):
    await STATEMENTS[statement]()


def test_the_checklist_is_whole():
    assert len(STATEMENTS) >= 92
