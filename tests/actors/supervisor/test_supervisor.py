"""The fixed pipeline, with providers that fail on plan, in virtual time."""

from __future__ import annotations

import asyncio
import copy
import math
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

import actors.supervisor.pipeline.choosing as choosing_module
from actors import (
    AllProvidersFailed,
    BreakerConfig,
    BreakerOpen,
    BudgetExceeded,
    FunctionTransport,
    GetStatus,
    Isolate,
    Ledger,
    Listing,
    Market,
    NoProvider,
    OutcomeUnknown,
    Permanent,
    Provider,
    ProviderCall,
    ProviderFilter,
    ProviderReply,
    Release,
    Retry,
    SmartRequest,
    Supervisor,
    Throttled,
    Transient,
    Unclassified,
    smart_request,
)
from actors.errors import BulkheadFull, DeadlineTooShort, QuotaExhausted, RateLimited, RegistryDown
from actors.events import BreakerClosed, BreakerHalfOpened, BreakerOpened, CallEnded, RequestEnded, Rerouted, Retried
from actors.ledger import CloseAccount, OpenAccount
from actors.ledger.messages import GetStatement
from actors.policies.breaker.circuit_breaker import HalfOpen, Open
from actors.policies.retry import RetryBudget
from actors.provider_gateway.messages import TRANSPORT_GRACE
from actors.supervisor import OpenQuota
from runtime import ActorCrashed, ActorEnded, ActorFailed, ActorSystem, AskTimeout, Event, handles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from actors.ledger.page import Statement


STEADY = Retry(base=0.0, cap=0.0)
"""Retries at once, so that a test counts calls and not seconds."""


class Script:
    """A provider that plays its outcomes in turn, the last one for good, and keeps the time of each call."""

    def __init__(self, *outcomes: Any, lasts: float = 0.0) -> None:
        self.outcomes = list(outcomes) or ["done"]
        self.lasts = lasts
        self.at: list[float] = []
        self.calls: list[ProviderCall] = []
        self.under_way = self.most_under_way = 0

    async def __call__(self, call: ProviderCall) -> Any:
        self.at.append(asyncio.get_running_loop().time())
        self.calls.append(call)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        try:
            await asyncio.sleep(self.lasts)
            if isinstance(outcome, BaseException):
                raise copy.copy(outcome)
            return outcome
        finally:
            self.under_way -= 1


class Stage:
    """A running supervisor, and what it published."""

    def __init__(self, system: ActorSystem, market: Market, registry: Any = None) -> None:
        made: list[Supervisor] = []

        def make() -> Supervisor:
            made.append(Supervisor(market, registry=registry))
            return made[-1]

        self.system = system
        self.ref = system.spawn(make, name="supervisor")
        self.instances = made
        self.events: list[Event] = []
        system.events.subscribe(Event, self.events.append)

    @property
    def actor(self) -> Supervisor:
        assert len(self.instances) == 1, "the supervisor was restarted"
        return self.instances[0]

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def request(self, **options: Any) -> Any:
        return await smart_request(self.ref, **{"service": "s", "input": "x", "strategy": "cheapest"} | options)

    async def account(self, name: str) -> Statement:
        return await self.ref.ask(GetStatement(name), timeout=1)

    @property
    def ledger(self) -> Ledger:
        ledger: Any = self.actor.books.recipient
        return ledger.actor

    async def assert_at_rest(self) -> None:
        await steps(2)  # The ledger is told, and has its turn.
        for target in self.actor.targets.values():
            assert target.state.under_way == 0, target
            assert not isinstance(target.state.breaker, HalfOpen), target
        assert len(self.actor.lines) == 0
        assert list(self.ledger.book.broken_invariants()) == []
        assert self.ledger.book.unsettled(is_held=False) == ()


def offer(
    name: str,
    script: Any,
    *,
    price: int = 0,
    paid: bool | None = None,
    idempotent: Any = "no",
    check: Any = None,
    **limits: Any,
) -> Listing:
    def make() -> FunctionTransport:
        is_paid = price > 0 if paid is None else paid
        return FunctionTransport(script, paid=is_paid, idempotent=idempotent, provider=name, check=check)

    return Listing(provider=Provider(name=name, services={"s"}, price=price), transport=make, **limits)


@asynccontextmanager
async def staged(*listings: Listing, registry: Any = None, **policies: Any) -> AsyncIterator[Stage]:
    market = Market(providers=listings, **{"retry": STEADY} | policies)
    async with ActorSystem("stage", seed=1) as system:
        yield Stage(system, market, registry)
    assert len(asyncio.all_tasks()) == 1


async def steps(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def flaky(name: str) -> Transient:
    return Transient(f"{name} is down", provider=name, outcome="not_started")


def now() -> float:
    return asyncio.get_running_loop().time()


# Where a request goes.


async def test_untried_providers_come_before_retries_and_each_failure_is_told():
    a, b, c = (Script(flaky(name), "answer") for name in "abc")
    b.outcomes[-1] = c.outcomes[-1] = flaky("again")
    async with staged(offer("a", a, price=1), offer("b", b, price=2), offer("c", c, price=3)) as stage:
        result = await stage.request()
        assert (result.output, result.provider, result.attempts) == ("answer", "a", 4)
        assert [attempt.provider for attempt in result.failures] == ["a", "b", "c"]
        assert [event.provider for event in stage.of(Rerouted)] == ["b", "c"]
        assert [event.provider for event in stage.of(Retried)] == ["a"]
        await stage.assert_at_rest()


async def test_each_failure_moves_on_to_the_next_fallback_strategy_and_the_last_holds_on():
    providers = {
        "best": Provider(name="best", services={"s"}, price=9, reputation=99, response_time=5),
        "fast": Provider(name="fast", services={"s"}, price=8, reputation=10, response_time=0.1),
        "cheap": Provider(name="cheap", services={"s"}, price=1, reputation=20, response_time=4),
        "cheaper-than-none": Provider(name="cheaper-than-none", services={"s"}, price=2, reputation=30),
    }
    asked: list[str] = []

    def listed(provider: Provider) -> Listing:
        async def fail(_: ProviderCall) -> str:
            asked.append(provider.name)
            raise flaky(provider.name)

        return Listing(
            provider=provider,
            transport=lambda: FunctionTransport(fail, paid=True, idempotent="no", provider=provider.name),
        )

    market = [listed(provider) for provider in providers.values()]
    async with staged(*market, retry=Retry(max_retries=0)) as stage:
        with pytest.raises(AllProvidersFailed) as failed:
            await stage.request(strategy="best", fallback_strategies=("fastest", "cheapest"))
        assert asked == ["best", "fast", "cheap", "cheaper-than-none"]
        assert [attempt.provider for attempt in failed.value.attempts] == asked


async def test_providers_that_do_not_pass_the_filter_are_never_called():
    cheap, dear = Script("cheap"), Script("dear")
    async with staged(offer("cheap", cheap, price=1), offer("dear", dear, price=900_000)) as stage:
        result = await stage.request(strategy="best", where=ProviderFilter(max_price="0.10"))
        assert result.output == "cheap"
        assert dear.calls == []
        with pytest.raises(NoProvider) as refused:
            await stage.request(where=ProviderFilter(min_reputation=99))
        assert refused.value.offered == 2


async def test_retries_wait_with_full_jitter_below_a_doubling_ceiling():
    script = Script(flaky("a"))
    policy = Retry(base=1.0, cap=4.0, max_retries=4)
    config = BreakerConfig(failure_threshold=100, min_calls=1000)
    waits: list[list[float]] = []
    for seed in range(30):
        script.at.clear()
        async with ActorSystem("stage", seed=seed) as system:
            stage = Stage(system, Market(providers=[offer("a", script)], retry=policy, breaker=config))
            with pytest.raises(AllProvidersFailed):
                await stage.request(timeout=100)
        waits.append([later - earlier for earlier, later in zip(script.at, script.at[1:], strict=False)])
    for number, ceiling in enumerate([1.0, 2.0, 4.0, 4.0]):
        drawn = [one[number] for one in waits]
        assert all(0 <= wait <= ceiling for wait in drawn)
        # Full jitter draws from all of the range, its lowest part included.
        assert min(drawn) < 0.25 * ceiling
        assert max(drawn) > 0.75 * ceiling


async def test_retry_after_is_honoured_and_gates_every_caller_of_that_provider():
    script = Script(Throttled("slow down", provider="a", retry_after=7.0), "done")
    async with staged(offer("a", script)) as stage:
        first = asyncio.create_task(stage.request())
        await steps(20)
        second = asyncio.create_task(stage.request())
        await asyncio.gather(first, second)
        # Nobody comes before the gate opens, and behind it they do not come together.
        assert script.at[0] == 0.0
        assert 7.0 <= script.at[1] < script.at[2] <= 13.0
        await stage.assert_at_rest()


async def test_a_retry_after_beyond_the_deadline_reroutes_at_once():
    a, b = Script(Throttled("later", provider="a", retry_after=60.0)), Script("b")
    async with staged(offer("a", a, price=1), offer("b", b, price=2)) as stage:
        assert (await stage.request(timeout=5)).output == "b"
        # Another caller with enough time does not disturb the provider either.
        assert (await stage.request(timeout=500)).output == "b"
        assert now() == 0.0
        assert len(a.calls) == 1
        # One who has nobody else fails at once, and learns why.
        with pytest.raises(RateLimited) as refused:
            await stage.request(timeout=5, where=ProviderFilter(max_price="0.000001"))
        assert now() == 0.0
        assert refused.value.retry_after is not None
        assert 60.0 <= refused.value.retry_after <= 62.0


@pytest.mark.parametrize(
    "error",
    [Permanent("no such language", provider="a"), ValueError("not json"), TypeError("no str")],
    ids=["permanent", "ValueError", "TypeError"],
)
async def test_the_callers_own_mistake_ends_the_request_at_once_and_never_trips(error: Exception):
    a, b = Script(error), Script("b")
    async with staged(offer("a", a, price=0), offer("b", b, price=2)) as stage:
        for _ in range(20):
            with pytest.raises(Permanent):
                await stage.request()
        assert (len(a.calls), len(b.calls)) == (20, 0)
        assert stage.of(BreakerOpened) == []
        await stage.assert_at_rest()


async def test_throttling_an_exhausted_quota_and_cancelled_callers_never_trip():
    script = Script(
        *[QuotaExhausted("pay first", provider="a")] * 30,
        *[Throttled("slow down", provider="a", retry_after=0.0)] * 30,
        "done",
        lasts=1.0,
    )
    async with staged(offer("a", script, max_concurrency=100), retry=Retry(max_retries=0)) as stage:
        for _ in range(60):
            with pytest.raises(AllProvidersFailed):
                await stage.request(timeout=100)
        await asyncio.sleep(60)
        tasks = [asyncio.create_task(stage.request()) for _ in range(40)]
        await steps(10)
        assert script.under_way > 0
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await steps(5)
        assert stage.of(BreakerOpened) == []
        assert script.under_way == 0
        await stage.assert_at_rest()
        assert (await stage.request()).output == "done"


async def test_retries_of_one_target_draw_on_one_budget():
    script = Script(flaky("a"))
    config = BreakerConfig(failure_threshold=10_000, min_calls=10_000)
    policy = Retry(base=0.0, cap=0.0, max_retries=50)
    async with staged(offer("a", script, max_concurrency=1000), retry=policy, breaker=config) as stage:
        budget = RetryBudget()
        first = [asyncio.create_task(stage.request(timeout=5.0)) for _ in range(100)]
        await asyncio.wait(first)
        # Ten tokens to begin with, a tenth of the first attempts, and one a second.
        allowed = budget.tokens + 100 * budget.ratio + 5 * budget.min_per_second
        assert 100 < len(script.calls) <= 100 + allowed
        assert all(isinstance(task.exception(), AllProvidersFailed) for task in first)
        refusals = [one for task in first for one in task.exception().refused]  # type: ignore[union-attr]
        assert any("retries of a" in str(refusal) for refusal in refusals)
        await stage.assert_at_rest()


async def test_a_repetition_that_is_owed_draws_on_no_retry_budget():
    """A call that may have been paid is repeated under its key, whatever other requests have been retried."""
    script = Script(Transient("500", provider="a", charged="held"), "done")
    async with staged(offer("a", script, price=1000, idempotent="key"), retry=Retry(base=0.0, cap=0.0)) as stage:
        target = stage.actor.targets["a"]
        target.state = type(target.state)(retries=RetryBudget(tokens=0.0, ratio=0.0, min_per_second=0.0))
        assert (await stage.request()).output == "done"
        assert len({call.idempotency_key for call in script.calls}) == 1


async def test_a_retry_waits_only_until_its_budget_has_a_whole_token_again():
    script = Script(flaky("a"), "done")
    async with staged(offer("a", script)) as stage:
        target = stage.actor.targets["a"]
        budget = RetryBudget(tokens=0.65, ratio=0.1, min_per_second=1.0)
        target.state = type(target.state)(retries=budget)
        result = await stage.request(timeout=0.5)
        assert (result.output, script.at) == ("done", [0.0, pytest.approx(0.25)])


async def test_no_call_outlives_the_deadline_and_the_failure_names_every_attempt():
    slow, slower = Script(lasts=100.0), Script(lasts=100.0)
    listings = [offer("a", slow, price=0, timeout=3.0), offer("b", slower, price=0, timeout=30.0)]
    async with staged(*listings, retry=Retry(max_retries=0)) as stage:
        with pytest.raises(AllProvidersFailed) as failed:
            await stage.request(timeout=5.0)
        assert [call.timeout for call in (*slow.calls, *slower.calls)] == [3.0, pytest.approx(2.0)]
        assert [attempt.kind for attempt in failed.value.attempts] == ["Transient", "Transient"]
        assert now() == pytest.approx(5.0, abs=0.3)
        await stage.assert_at_rest()


async def test_whoever_asks_with_less_time_than_the_request_allows_gets_an_answer_in_that_time():
    script = Script(flaky("a"))
    async with staged(offer("a", script), retry=Retry(base=10.0, cap=10.0, jitter="none")) as stage:
        request = SmartRequest(service="s", input="x", timeout=60.0)
        with pytest.raises(AllProvidersFailed):
            await stage.ref.ask(request, timeout=2.0)
        assert now() == 0.0  # The retry would have come too late, so there was nothing to wait for.


# Health.


def unhealthy_for(name: str, checks: list[str], *, lasts: float = 0.0) -> Any:
    async def check(_: float) -> None:
        checks.append(name)
        await asyncio.sleep(lasts)
        raise flaky(name)

    return check


def healthy_for(name: str, checks: list[str], *, lasts: float = 0.0) -> Any:
    async def check(_: float) -> None:
        checks.append(name)
        await asyncio.sleep(lasts)

    return check


async def test_a_health_check_skips_the_unhealthy_first_choice_and_is_remembered_for_a_while():
    a, b, checks = Script("a"), Script("b"), list[str]()
    listings = [
        offer("a", a, price=1, check=unhealthy_for("a", checks)),
        offer("b", b, price=2, check=healthy_for("b", checks)),
        offer("c", Script("c"), price=3, check=healthy_for("c", checks)),
    ]
    max_age = 31.0
    async with staged(*listings) as stage:
        for _ in range(5):
            assert (await stage.request(health_check=True)).output == "b"
        assert checks == ["a", "b"]
        await asyncio.sleep(max_age)
        assert (await stage.request(health_check=True)).output == "b"
        assert checks == ["a", "b", "a", "b"]
        assert a.calls == []


async def test_a_request_is_not_lost_when_all_are_unhealthy():
    checks: list[str] = []
    listings = [
        offer("a", Script("a"), price=1, check=unhealthy_for("a", checks)),
        offer("b", Script("b"), price=2, check=unhealthy_for("b", checks)),
    ]
    async with staged(*listings) as stage:
        assert (await stage.request(health_check=True)).output == "a"
        assert checks == ["a", "b"]


@pytest.mark.parametrize("bug", [KeyError("bug"), RuntimeError("bug"), flaky("a")], ids=repr)
async def test_a_check_that_raises_finds_the_provider_unhealthy_and_harms_no_call_under_way(bug: Exception):
    async def check(_: float) -> None:
        raise bug

    class Bad(FunctionTransport):
        async def check(self, *, timeout: float) -> None:  # noqa: ASYNC109 - the protocol.
            raise bug

    slow = Script("slow", lasts=5.0)
    bad = Listing(
        provider=Provider(name="bad", services={"s"}, price=1),
        transport=lambda: Bad(slow, paid=True, idempotent="no", provider="bad"),
    )
    async with staged(bad, offer("b", Script("b"), price=2)) as stage:
        paid = asyncio.create_task(stage.request())
        await steps(10)
        assert (await stage.request(health_check=True)).output == "b"
        assert (await paid).output == "slow"
        assert stage.of(ActorFailed) == []


async def test_many_who_want_a_check_share_one_and_a_check_that_hangs_is_given_up():
    checks: list[str] = []
    forever = 1e9

    class Deaf(FunctionTransport):
        async def check(self, *, timeout: float) -> None:  # noqa: ASYNC109 - the protocol.
            checks.append("deaf")
            await asyncio.sleep(forever)

    deaf = Listing(
        provider=Provider(name="deaf", services={"s"}, price=1),
        transport=lambda: Deaf(Script("deaf"), paid=True, idempotent="no", provider="deaf"),
    )
    async with staged(deaf, offer("b", Script("b"), price=2, max_concurrency=100)) as stage:
        results = await asyncio.gather(*(stage.request(health_check=True) for _ in range(10)))
        assert {result.output for result in results} == {"b"}
        assert checks == ["deaf"]
        assert now() <= 3.0
        await asyncio.sleep(stage.actor.market.health.max_age)
        await stage.request(health_check=True)
        assert checks == ["deaf", "deaf"]  # The one that hung is not waited for again.


async def test_checks_that_hang_leave_half_of_the_time_for_the_call():
    forever = 1e9

    class Deaf(FunctionTransport):
        async def check(self, *, timeout: float) -> None:  # noqa: ASYNC109 - the protocol.
            await asyncio.sleep(forever)

    def deaf(name: str) -> Listing:
        return Listing(
            provider=Provider(name=name, services={"s"}),
            transport=lambda: Deaf(Script("done"), paid=False, idempotent="no", provider=name),
        )

    async with staged(*(deaf(name) for name in "abc")) as stage:
        assert (await stage.request(health_check=True, timeout=3.0)).provider == "a"
        assert now() == 1.5
        # Until 2.25 s the check of the first still runs, and then that of the second begins.
        assert (await stage.request(health_check=True, timeout=3.0)).provider == "b"
        assert now() == 3.0
        await stage.assert_at_rest()


async def test_asking_for_the_health_of_an_isolated_provider_does_not_leave_a_gateway_behind():
    checks: list[str] = []
    async with staged(offer("a", Script(), check=healthy_for("a", checks))) as stage:
        await stage.ref.ask(Isolate(provider="a"), timeout=1)
        (status,) = await stage.ref.ask(GetStatus(check_health=True), timeout=5)
        assert (status.breaker, status.healthy, checks) == ("isolated", True, ["a"])
        assert stage.actor.targets["a"].gateway is None


# The breaker as supervision.


async def test_the_breaker_opens_at_five_failures_in_a_row_and_stops_the_gateway():
    a, b = Script(flaky("a")), Script("b")
    async with staged(offer("a", a, price=1), offer("b", b, price=2)) as stage:
        for _ in range(4):
            await stage.request()
        gateway = stage.actor.targets["a"].gateway
        assert gateway is not None
        assert stage.of(BreakerOpened) == []
        await stage.request()
        assert [event.provider for event in stage.of(BreakerOpened)] == ["a"]
        await gateway.terminated()
        assert [event.ref for event in stage.of(ActorEnded)] == [gateway]
        await stage.request()
        assert (len(a.calls), len(b.calls)) == (5, 6)
        (status, _) = await stage.ref.ask(GetStatus(), timeout=1)
        assert (status.breaker, status.failures, status.trips) == ("open", 5, 1)


async def test_the_breaker_opens_at_the_failure_rate_without_a_streak():
    script = Script(*[flaky("a"), "done"] * 20)
    config = BreakerConfig(failure_threshold=5, failure_rate=0.5, min_calls=20)
    async with staged(offer("a", script), retry=Retry(max_retries=0), breaker=config) as stage:
        outcomes = await asyncio.gather(*(stage.request() for _ in range(10)), return_exceptions=True)
        assert stage.of(BreakerOpened) == []
        for _ in range(30):
            if stage.of(BreakerOpened):
                break
            outcomes.extend(await asyncio.gather(stage.request(), return_exceptions=True))
        # The failure that makes at least half of at least 20 calls.
        assert len(script.calls) == 21
        assert len(stage.of(BreakerOpened)) == 1


async def trip(stage: Stage, script: Script) -> None:
    """Have the only provider's breaker open by five failures."""
    for _ in range(5):
        with pytest.raises((AllProvidersFailed, OutcomeUnknown, BreakerOpen)):
            await stage.request()
    assert isinstance(stage.actor.targets["a"].state.breaker, Open)
    script.at.clear()
    script.calls.clear()


FRAGILE = BreakerConfig(open_for=30.0, max_open_for=300.0, jitter=0.1, slow_start=0.0, relapse_within=0.0)


async def test_half_open_starts_one_fresh_gateway_for_one_probe_among_a_thousand_callers():
    script = Script(*[flaky("a")] * 5, "done", lasts=1.0)
    listing = offer("a", script, max_concurrency=1000)
    async with staged(listing, retry=Retry(max_retries=0), breaker=FRAGILE) as stage:
        await trip(stage, script)
        started = stage.actor.gateways._started
        await asyncio.sleep(stage.of(BreakerOpened)[0].wait)
        tasks = [asyncio.create_task(stage.request(timeout=100)) for _ in range(1000)]
        await steps(50)
        assert script.under_way == 1
        assert isinstance(stage.actor.targets["a"].state.breaker, HalfOpen)
        assert len(stage.of(BreakerHalfOpened)) == 1
        assert stage.actor.gateways._started == started + 1
        results = await asyncio.gather(*tasks)
        assert len(results) == 1000
        assert len(stage.of(BreakerClosed)) == 1
        assert stage.actor.gateways._started == started + 1
        await stage.assert_at_rest()


async def test_the_waits_grow_with_each_probe_that_fails():
    script = Script(flaky("a"))
    async with staged(offer("a", script), retry=Retry(max_retries=0), breaker=FRAGILE) as stage:
        await trip(stage, script)
        for probes in range(1, 6):
            await asyncio.sleep(stage.of(BreakerOpened)[-1].wait)
            with pytest.raises(AllProvidersFailed):
                await stage.request(timeout=1)
            assert len(script.calls) == probes
        waits = [event.wait for event in stage.of(BreakerOpened)]
        ceilings = [30.0, 60.0, 120.0, 240.0, 300.0, 300.0]
        assert len(waits) == len(ceilings)
        for wait, ceiling in zip(waits, ceilings, strict=True):
            assert 0.9 * ceiling <= wait <= min(300.0, 1.1 * ceiling)


class Checkup:
    """A health check that plays its problems in turn, the last one for good; None is health."""

    def __init__(self, *problems: Exception | None, lasts: float = 0.0) -> None:
        self.problems, self.lasts, self.count = list(problems), lasts, 0

    async def __call__(self, _timeout: float) -> None:
        self.count += 1
        await asyncio.sleep(self.lasts)
        problem = self.problems.pop(0) if len(self.problems) > 1 else self.problems[0]
        if problem is not None:
            raise problem


async def wait_is_over(stage: Stage) -> None:
    await asyncio.sleep(stage.of(BreakerOpened)[-1].wait)


async def test_who_fails_its_own_check_is_not_probed_and_costs_no_request_anything():
    a, b = Script(*[flaky("a")] * 5, "a"), Script("b")
    check = Checkup(flaky("a"), flaky("a"), None, lasts=0.5)
    async with staged(
        offer("a", a, price=1, check=check), offer("b", b, price=2), retry=Retry(max_retries=0), breaker=FRAGILE
    ) as stage:
        for _ in range(5):
            await stage.request()
        a.calls.clear()
        ended = len(stage.of(CallEnded))
        for _ in range(2):
            await wait_is_over(stage)
            result = await stage.request()
            assert (result.output, result.attempts, result.failures, result.cost) == ("b", 1, (), 2)
        assert (a.calls, check.count) == ([], 2)
        assert len(stage.of(CallEnded)) == ended + 2  # Those of the other provider.
        waits = [event.wait for event in stage.of(BreakerOpened)]
        assert waits[2] > waits[1] > waits[0]
        await wait_is_over(stage)
        assert (await stage.request()).output == "a"
        assert check.count == 3
        await stage.assert_at_rest()


async def test_who_was_a_probe_in_vain_is_served_in_its_turn_all_the_same():
    a, b = Script(flaky("a"), lasts=0.1), Script("b", lasts=1.0)
    config = BreakerConfig(open_for=2.5, jitter=0.0)
    async with staged(
        offer("a", a, price=1), offer("b", b, price=2, max_concurrency=1), retry=Retry(max_retries=0), breaker=config
    ) as stage:
        await asyncio.gather(*(stage.request(input="before") for _ in range(5)))
        await asyncio.sleep(2.0)
        stage.actor.providers.become(stage.actor.targets["a"], Open(7, until=now() + 2.5))
        a.calls.clear()
        b.calls.clear()
        requests = []
        for number in range(6):
            requests.append(asyncio.create_task(stage.request(input=number)))
            await steps(20)
        await asyncio.gather(*requests)
        assert [call.input for call in a.calls] == [3]
        assert [call.input for call in b.calls] == [0, 1, 2, 3, 4, 5]
        await stage.assert_at_rest()


async def test_a_check_that_fails_while_calls_would_succeed_is_found_out_and_no_longer_asked_for_advice():
    script, check = Script(*[flaky("a")] * 5, "done"), Checkup(flaky("check"))
    async with staged(offer("a", script, check=check), retry=Retry(max_retries=0), breaker=FRAGILE) as stage:
        await trip(stage, script)
        for _ in range(4):
            await wait_is_over(stage)
            with pytest.raises(BreakerOpen):
                await stage.request(timeout=1)
        await wait_is_over(stage)
        assert (await stage.request(timeout=1)).output == "done"
        script.outcomes[:] = [*[flaky("a")] * 5, "done"]
        await trip(stage, script)
        await wait_is_over(stage)
        assert (await stage.request(timeout=1)).output == "done"


async def test_who_has_no_check_to_answer_is_probed():
    script = Script(*[flaky("a")] * 5, "done")
    check = Checkup(Permanent("404 Not Found", provider="a", status=404))
    async with staged(offer("a", script, check=check), retry=Retry(max_retries=0), breaker=FRAGILE) as stage:
        await trip(stage, script)
        await wait_is_over(stage)
        assert (await stage.request(timeout=1)).output == "done"
        # What its check said is no mark against it.
        assert (await stage.request(timeout=1)).output == "done"


async def test_who_is_cancelled_during_the_check_before_its_probe_leaves_both_to_the_next():
    script, check = Script(*[flaky("a")] * 5, "done"), Checkup(None, lasts=1.0)
    async with staged(offer("a", script, price=5, check=check), retry=Retry(max_retries=0), breaker=FRAGILE) as stage:
        await trip(stage, script)
        await wait_is_over(stage)
        probe = asyncio.create_task(stage.request())
        await asyncio.sleep(0.5)
        others = [asyncio.create_task(stage.request()) for _ in range(5)]
        await steps(10)
        probe.cancel()
        await asyncio.wait([probe])
        assert {(await one).output for one in others} == {"done"}
        assert len(script.calls) == 5
        await stage.assert_at_rest()


async def test_a_check_that_takes_all_of_the_time_leaves_neither_money_nor_the_place_of_the_probe_behind():
    class Slow(FunctionTransport):
        async def check(self, *, timeout: float) -> None:  # noqa: ASYNC109 - the interface of `Transport`.
            await asyncio.sleep(0.35)

    script = Script(*[flaky("a")] * 5, "done")
    listing = Listing(
        provider=Provider(name="a", services={"s"}, price=5),
        transport=lambda: Slow(script, paid=True, idempotent="no", provider="a"),
    )
    async with staged(listing, retry=Retry(max_retries=0), breaker=FRAGILE) as stage:
        await trip(stage, script)
        await wait_is_over(stage)
        with pytest.raises(DeadlineTooShort):
            await stage.request(timeout=0.3)
        await stage.assert_at_rest()
        assert (await stage.request(timeout=5)).output == "done"


async def test_a_probe_that_is_cancelled_gives_its_place_to_the_next_who_waits():
    script = Script(*[flaky("a")] * 5, "done", lasts=2.0)
    async with staged(offer("a", script), retry=Retry(max_retries=0), breaker=FRAGILE) as stage:
        await trip(stage, script)
        await asyncio.sleep(stage.of(BreakerOpened)[0].wait)
        probe = asyncio.create_task(stage.request())
        await steps(10)
        others = [asyncio.create_task(stage.request()) for _ in range(5)]
        await steps(10)
        assert script.under_way == 1
        probe.cancel()
        await asyncio.wait([probe])
        await steps(10)
        assert script.under_way == 1
        assert {result.output for result in await asyncio.gather(*others)} == {"done"}
        assert len(stage.of(BreakerOpened)) == 1  # A cancelled probe is no trip.
        assert len(stage.of(BreakerClosed)) == 1
        await stage.assert_at_rest()


async def test_those_who_wait_for_a_probe_that_never_reports_probe_again_when_its_lease_ends():
    forever = 1e6

    class Deaf(FunctionTransport):
        async def call(self, call: ProviderCall) -> ProviderReply:
            script.calls.append(call)
            if len(script.calls) == 1:
                await asyncio.sleep(forever)
            return ProviderReply(output="done")

    script = Script()
    listing = Listing(
        provider=Provider(name="a", services={"s"}),
        transport=lambda: Deaf(script, paid=False, idempotent="no", provider="a"),
        timeout=100.0,
    )
    config = BreakerConfig(probe_lease=5.0)
    async with staged(listing, retry=Retry(max_retries=0), breaker=config) as stage:
        target = stage.actor.targets["a"]
        target.state = type(target.state)(breaker=Open(epoch=1, until=0.0))
        lost = asyncio.create_task(stage.request(timeout=200))
        await steps(10)
        assert (await stage.request(timeout=20)).output == "done"
        assert now() == pytest.approx(5.0)
        with pytest.raises(AllProvidersFailed):
            await lost
        assert len(stage.of(BreakerOpened)) == 0  # The result of the lost probe is stale.
        await stage.assert_at_rest()


async def test_calls_in_flight_when_a_provider_is_isolated_finish_and_move_nothing():
    script = Script("done", lasts=5.0)
    async with staged(offer("a", script, price=7)) as stage:
        call = asyncio.create_task(stage.request())
        await steps(10)
        gateway = stage.actor.targets["a"].gateway
        await stage.ref.ask(Isolate(provider="a"), timeout=1)
        with pytest.raises(BreakerOpen) as refused:
            await stage.request()
        assert refused.value.retry_after is None
        result = await call
        assert (result.output, result.cost) == ("done", 7)
        assert gateway is not None
        await gateway.terminated()
        (status,) = await stage.ref.ask(GetStatus(), timeout=1)
        assert (status.breaker, status.trips) == ("isolated", 0)
        await stage.ref.ask(Release(provider="a"), timeout=1)
        assert (await stage.request()).output == "done"
        await stage.assert_at_rest()


async def test_a_failure_of_a_call_admitted_before_the_breaker_opened_is_ignored():
    script = Script(*[flaky("a")] * 5, lasts=1.0)
    late = Script(flaky("a"), lasts=10.0)
    scripts = [late, *[script] * 5]

    async def answer(call: ProviderCall) -> Any:
        return await scripts.pop(0)(call) if scripts else "done"

    async with staged(offer("a", answer), retry=Retry(max_retries=0), breaker=FRAGILE) as stage:
        requests = [asyncio.create_task(stage.request()) for _ in range(6)]
        await asyncio.wait(requests)
        assert len(stage.of(BreakerOpened)) == 1
        first_wait = stage.of(BreakerOpened)[0].wait
        await asyncio.sleep(1.0 + first_wait - now())
        assert (await stage.request()).output == "done"
        assert len(stage.of(BreakerOpened)) == 1


async def test_isolating_fails_those_who_have_nobody_else_at_once():
    script = Script("done", lasts=5.0)
    async with staged(offer("a", script, max_concurrency=1)) as stage:
        busy = asyncio.create_task(stage.request())
        await steps(10)
        waiting = [asyncio.create_task(stage.request(timeout=60)) for _ in range(20)]
        await steps(10)
        assert len(stage.actor.lines) == 20
        await stage.ref.ask(Isolate(provider="a"), timeout=1)
        await asyncio.wait(waiting)
        assert now() == 0.0
        assert all(isinstance(task.exception(), BreakerOpen) for task in waiting)
        await busy
        await stage.assert_at_rest()


# Bugs of others.


class Buggy(FunctionTransport):
    """A transport that breaks its contract: what it raises is no `CallFailed`."""

    closed = 0

    async def call(self, call: ProviderCall) -> ProviderReply:
        raise KeyError(call.input)

    async def aclose(self) -> None:
        type(self).closed += 1


async def test_a_transport_that_crashes_takes_down_neither_the_supervisor_nor_the_request():
    def make() -> Buggy:
        return Buggy(Script(), paid=False, idempotent="no", provider="bad")

    bad = Listing(provider=Provider(name="bad", services={"s"}, price=0), transport=make)
    Buggy.closed = 0
    async with staged(bad, offer("b", Script("b"), price=2)) as stage:
        for _ in range(10):
            assert (await stage.request()).output == "b"
        assert len(stage.of(BreakerOpened)) == 1
        assert stage.of(ActorFailed) == []
        assert Buggy.closed == 1  # With the gateway, when the breaker opened.
        await stage.assert_at_rest()


async def test_a_provider_whose_transport_cannot_be_made_is_that_providers_failure():
    def make() -> FunctionTransport:
        raise KeyError("no address")

    bad = Listing(provider=Provider(name="bad", services={"s"}, price=0), transport=make)
    async with staged(bad, offer("b", Script("b"), price=2)) as stage:
        for _ in range(10):
            result = await stage.request()
            assert result.output == "b"
        for _ in range(10):
            result = await stage.request(health_check=True)
            assert result.output == "b"
        assert [event.provider for event in stage.of(BreakerOpened)] == ["bad"]
        (status, _) = await stage.ref.ask(GetStatus(check_health=True), timeout=5)
        assert status.problem is not None
        assert "no address" in status.problem
        stage.actor.targets["bad"].state = type(stage.actor.targets["bad"].state)()
        with pytest.raises(AllProvidersFailed) as failed:
            await stage.request(where=ProviderFilter(max_price="0"))
        assert failed.value.attempts[0].kind == Unclassified.__name__
        await stage.assert_at_rest()


async def test_a_gateway_killed_from_outside_is_replaced():
    script = Script("done", lasts=1.0)
    async with staged(offer("a", script, price=5, idempotent="key")) as stage:
        await stage.request()
        gateway = stage.actor.targets["a"].gateway
        assert gateway is not None
        gateway.kill()
        await gateway.terminated()
        assert (await stage.request()).output == "done"
        call = asyncio.create_task(stage.request())
        await steps(10)
        second = stage.actor.targets["a"].gateway
        assert second is not None
        assert second != gateway
        second.kill()
        result = await call
        assert (result.output, result.attempts, result.cost) == ("done", 2, 5)
        await stage.assert_at_rest()


async def test_names_that_look_alike_do_not_collide():
    names = ["a/b", "a-b", "quota", "discovery", "gateway-1-a-b"]
    async with staged(*(offer(name, Script(name)) for name in names)) as stage:
        await stage.ref.ask(OpenQuota(name="q", rate=1.0), timeout=1)
        for name in names:
            await stage.ref.ask(Isolate(provider=name), timeout=1)
        for name in names:
            await stage.ref.ask(Release(provider=name), timeout=1)
            assert (await stage.request()).output == name
            await stage.ref.ask(Isolate(provider=name), timeout=1)


async def test_a_quota_that_cannot_be_is_refused_before_it_is_asked_for():
    for rate in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="rate"):
            OpenQuota(name="q", rate=rate)
    with pytest.raises(ValueError, match="burst"):
        OpenQuota(name="q", rate=1.0, burst=0)


# Money.


async def test_the_true_cost_is_settled_and_the_rest_is_free_again():
    script = Script(ProviderReply(output="x", cost=3), ProviderReply(output="x"), "plain")
    async with staged(offer("a", script, price=10)) as stage:
        await stage.ref.ask(OpenAccount(name="acc", cap=100), timeout=1)
        assert [(await stage.request(account="acc")).cost for _ in range(3)] == [3, 10, 10]
        account = await stage.ref.ask(CloseAccount(name="acc"), timeout=1)
        assert (account.settled, account.held, account.reserved) == (23, 0, 0)


async def test_a_price_above_the_budget_is_refused_without_a_call():
    script = Script()
    async with staged(offer("a", script, price=10)) as stage:
        with pytest.raises(BudgetExceeded) as refused:
            await stage.request(budget="0.000009")
        assert (refused.value.needed, refused.value.available, refused.value.cap) == (10, 9, "request")
        assert script.calls == []
        assert (await stage.request(budget="0.00001")).cost == 10


async def test_a_failed_call_that_was_charged_is_paid_and_told():
    charged = Unclassified("garbage", provider="a", charged="yes")
    async with staged(offer("a", Script(charged), price=10), offer("b", Script("b"), price=20)) as stage:
        result = await stage.request()
        assert (result.provider, result.cost) == ("b", 30)
        assert result.failures[0].cost == 10
        with pytest.raises(AllProvidersFailed) as failed:
            await stage.request(budget="0.00002")
        assert failed.value.charged == "yes"
        assert any(isinstance(refusal, BudgetExceeded) for refusal in failed.value.refused)


async def test_a_call_that_may_have_been_paid_is_repeated_under_its_key_and_paid_once():
    lost = ConnectionResetError("gone")
    script = Script(lost, flaky("a"), lost, "done")
    other = Script("other")
    async with staged(offer("a", script, price=10, idempotent="key"), offer("b", other, price=20)) as stage:
        await stage.ref.ask(OpenAccount(name="acc", cap=10), timeout=1)
        result = await stage.request(account="acc")
        assert (result.provider, result.cost, result.attempts) == ("a", 10, 4)
        assert len({call.idempotency_key for call in script.calls}) == 1
        assert other.calls == []
        account = await stage.account("acc")
        assert (account.settled, account.held, account.reserved) == (10, 0, 0)


async def test_nobody_else_is_paid_while_a_call_may_have_been():
    lost = ConnectionResetError("gone")
    other = Script("other")
    async with staged(offer("a", Script(lost), price=10, idempotent="key"), offer("b", other, price=20)) as stage:
        await stage.ref.ask(OpenAccount(name="acc", cap=1000), timeout=1)
        with pytest.raises(OutcomeUnknown) as unknown:
            await stage.request(account="acc", timeout=5)
        assert (unknown.value.provider, unknown.value.charged) == ("a", "held")
        assert other.calls == []
        account = await stage.account("acc")
        assert (account.settled, account.held, account.reserved) == (0, 10, 0)
    async with staged(offer("a", Script(lost), price=10), offer("b", other, price=20)) as stage:
        with pytest.raises(OutcomeUnknown):
            await stage.request()
        assert other.calls == []


async def test_a_repetition_that_may_be_charged_again_needs_money_of_its_own():
    lost = ConnectionResetError("gone")
    script = Script(lost, "done")
    async with staged(offer("a", script, price=10, idempotent="repeatable")) as stage:
        await stage.ref.ask(OpenAccount(name="acc", cap=100), timeout=1)
        result = await stage.request(account="acc")
        assert (result.output, result.cost) == ("done", 10)
        account = await stage.account("acc")
        assert (account.settled, account.held, account.reserved) == (10, 10, 0)
        script.outcomes = [lost, "done"]
        with pytest.raises(OutcomeUnknown):
            await stage.request(account="acc", budget="0.000019")
        assert len(script.calls) == 3


async def test_a_request_waits_for_money_that_a_call_under_way_gives_back():
    script = Script(ProviderReply(output="x", cost=1), lasts=2.0)
    async with staged(offer("a", script, price=10)) as stage:
        await stage.ref.ask(OpenAccount(name="acc", cap=11), timeout=1)
        await asyncio.gather(stage.request(account="acc"), stage.request(account="acc"))
        assert script.at == [0.0, 2.0]
        with pytest.raises(BudgetExceeded) as refused:
            await stage.request(account="acc")
        assert (refused.value.cap, refused.value.available) == ("acc", 9)
        assert now() == 4.0
        await stage.assert_at_rest()


async def test_an_account_is_closed_when_its_last_call_has_ended_and_a_new_one_of_its_name_is_another():
    script = Script("done", lasts=1.0)
    async with staged(offer("a", script, price=10)) as stage:
        await stage.ref.ask(OpenAccount(name="acc", cap=10), timeout=1)
        request = asyncio.create_task(stage.request(account="acc"))
        await steps(10)
        closing = asyncio.create_task(stage.ref.ask(CloseAccount(name="acc"), timeout=9))
        await steps(10)
        assert not closing.done()
        with pytest.raises(Permanent, match="no open account"):
            await stage.request(account="acc")
        assert (await request).cost == 10
        assert (await closing).settled == 10
        await stage.ref.ask(OpenAccount(name="acc", cap=10), timeout=1)
        fresh = await stage.account("acc")
        assert (fresh.reserved, fresh.settled, fresh.available) == (0, 0, 10)
        with pytest.raises(Permanent, match="open already"):
            await stage.ref.ask(OpenAccount(name="acc"), timeout=1)


async def test_a_request_whose_account_is_closed_makes_no_further_call():
    script = Script(flaky("a"), "done", lasts=1.0)
    async with staged(offer("a", script, price=10)) as stage:
        await stage.ref.ask(OpenAccount(name="acc", cap=10), timeout=1)
        request = asyncio.create_task(stage.request(account="acc"))
        await steps(10)
        assert (await stage.ref.ask(CloseAccount(name="acc"), timeout=9)).settled == 0
        with pytest.raises(AllProvidersFailed, match="no open account"):
            await request
        assert len(script.calls) == 1


async def test_made_up_account_names_avoid_those_in_use():
    async with staged(offer("a", Script())) as stage:
        await stage.ref.ask(OpenAccount(name="account-1"), timeout=1)
        names = [await stage.ref.ask(OpenAccount(), timeout=1) for _ in range(3)]
        assert len({*names, "account-1"}) == 4


async def test_what_was_opened_for_somebody_who_had_gone_is_closed_again():
    kept = 0
    for k in range(5):
        async with staged(offer("a", Script())) as stage:
            await steps(3)
            accounts = [asyncio.create_task(stage.ref.ask(OpenAccount(), timeout=1)) for _ in range(200)]
            quotas = [asyncio.create_task(stage.ref.ask(OpenQuota(name="q", rate=1.0), timeout=1)) for _ in range(50)]
            await steps(k)
            for asking in (*accounts, *quotas):
                asking.cancel()
            await asyncio.wait([*accounts, *quotas])
            await steps(10)
            opened = len(stage.ledger.book.open_accounts())
            assert opened == sum(not asking.cancelled() for asking in accounts)
            limiters = [name for name in stage.actor.context.children if name.startswith("quota")]
            assert len(limiters) == sum(not asking.cancelled() for asking in quotas)
            kept += opened
    assert kept > 0
    async with staged(offer("a", Script())) as stage:
        await steps(1)
        stage.actor.unclaimed(OpenAccount(), await stage.ref.ask(OpenAccount(), timeout=1))
        await steps(2)
        assert stage.ledger.book.open_accounts() == []


async def test_prices_that_change_between_requests_are_paid_as_they_were_admitted():
    script = Script("done", lasts=1.0)
    cheap, dear = offer("a", script, price=10), offer("a", script, price=30)
    offered = [cheap]

    async def registry(_: str) -> list[Listing]:
        return offered

    ttl = 700.0
    async with staged(cheap, registry=registry) as stage:
        assert (await stage.request()).cost == 10
        await asyncio.sleep(ttl)
        offered[:] = [dear]
        first = asyncio.create_task(stage.request())  # Served by what is remembered, which is refreshed behind it.
        await steps(20)
        second = asyncio.create_task(stage.request())
        await steps(20)
        assert [(await first).cost, (await second).cost] == [10, 30]
        await stage.assert_at_rest()


async def test_a_provider_whose_limits_change_goes_by_the_new_ones():
    script = Script("done", lasts=1.0)
    offered = [offer("a", script, max_concurrency=1, rate_limit=1.0)]

    async def registry(_: str) -> list[Listing]:
        return offered

    ttl = 700.0
    async with staged(offered[0], registry=registry) as stage:
        await stage.request()
        await asyncio.sleep(ttl)
        offered[:] = [offer("a", script, max_concurrency=50)]
        await stage.request()
        script.most_under_way = 0
        await asyncio.gather(*(stage.request() for _ in range(50)))
        assert script.most_under_way > 1
        await stage.assert_at_rest()


# Waiting.


async def count_decisions(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    decided: list[float] = []
    true_admit = choosing_module.admit

    def counting(*args: Any, **kwargs: Any) -> Any:
        decided.append(kwargs["now"])
        return true_admit(*args, **kwargs)

    monkeypatch.setattr(choosing_module, "admit", counting)
    await stage.request()  # So that discovery knows.
    decided.clear()
    return decided


async def in_turn(stage: Stage, count: int) -> list[asyncio.Task[Any]]:
    """Start numbered requests, each after the one before it has come to its first wait."""
    requests: list[asyncio.Task[Any]] = []
    for number in range(count):
        requests.append(asyncio.create_task(stage.request(input=number, timeout=1000)))
        await steps(4)
    return requests


async def test_a_thousand_who_wait_for_a_place_are_served_in_order_with_two_looks_a_release(
    monkeypatch: pytest.MonkeyPatch,
):
    script = Script("done", lasts=1.0)
    async with staged(offer("a", script, max_concurrency=10)) as stage:
        decided = await count_decisions(stage, monkeypatch)
        script.calls.clear()
        await asyncio.gather(*await in_turn(stage, 1000))
        assert [call.input for call in script.calls] == list(range(1000))
        assert now() == pytest.approx(101.0)
        assert script.most_under_way == 10
        assert len(decided) <= 1000 + 2 * 1000
        await stage.assert_at_rest()


async def test_a_thousand_who_wait_for_tokens_are_served_in_order_and_at_the_rate(monkeypatch: pytest.MonkeyPatch):
    script = Script("done")
    async with staged(offer("a", script, max_concurrency=1000, rate_limit=100.0, burst=1, headroom=1.0)) as stage:
        decided = await count_decisions(stage, monkeypatch)
        started = now()
        script.calls.clear()
        await asyncio.gather(*await in_turn(stage, 1000))
        assert [call.input for call in script.calls] == list(range(1000))
        assert 1000 / (now() - started) >= 99.5
        # One look on arrival, one at its time, one as the new first in line; and a call that ends looks too.
        assert len(decided) <= 4 * 1000
        await stage.assert_at_rest()


async def test_a_thousand_who_wait_for_money_take_two_looks_a_release(monkeypatch: pytest.MonkeyPatch):
    script = Script(ProviderReply(output="x", cost=1), lasts=1.0)
    async with staged(offer("a", script, price=10, max_concurrency=1000)) as stage:
        decided = await count_decisions(stage, monkeypatch)
        await stage.ref.ask(OpenAccount(name="acc", cap=1009), timeout=1)
        results = await asyncio.gather(*(stage.request(account="acc", timeout=1000) for _ in range(1000)))
        assert sum(result.cost for result in results) == 1000
        assert len(decided) <= 4 * 1000
        await stage.assert_at_rest()


async def test_those_who_wait_while_another_market_is_busy_are_left_alone(monkeypatch: pytest.MonkeyPatch):
    slow = Listing(
        provider=Provider(name="slow", services={"t"}),
        transport=lambda: FunctionTransport(Script(lasts=9.0), paid=False, idempotent="no"),
        max_concurrency=1,
    )
    async with staged(slow, offer("a", Script("done", lasts=0.1))) as stage:
        decided = await count_decisions(stage, monkeypatch)
        waiting = [asyncio.create_task(stage.request(service="t", timeout=100)) for _ in range(6)]
        await steps(10)
        decided.clear()
        for _ in range(50):
            await stage.request()
        assert len(decided) == 50
        await asyncio.gather(*waiting)


async def test_one_who_is_cancelled_right_when_it_is_woken_passes_its_turn_on():
    script = Script("done", lasts=1.0)
    for k in range(12):
        async with staged(offer("a", script, max_concurrency=1)) as stage:
            began = now()
            first = asyncio.create_task(stage.request())
            await steps(10)
            second, third = (asyncio.create_task(stage.request()) for _ in range(2))
            await asyncio.wait([first])
            await steps(k)
            second.cancel()
            await asyncio.wait([second, third])
            assert third.result().output == "done"
            assert now() - began <= 3.0
            await steps(5)
            await stage.assert_at_rest()


async def test_who_takes_another_provider_leaves_the_front_of_the_line_to_the_next():
    a, b = Script("a", lasts=10.0), Script("b", lasts=4.0)
    async with staged(
        offer("a", a, price=1, max_concurrency=1, timeout=60), offer("b", b, price=2, max_concurrency=1, timeout=60)
    ) as stage:
        cheap = ProviderFilter(max_price="0.000001")
        requests = [asyncio.create_task(stage.request(input=number, timeout=100)) for number in range(3)]
        await steps(10)
        # The third waits for both; this one only for the cheaper, and stands behind it.
        requests.append(asyncio.create_task(stage.request(input=3, where=cheap, timeout=100)))
        await steps(10)
        await asyncio.gather(*requests)
        assert [call.input for call in a.calls] == [0, 3]
        assert [call.input for call in b.calls] == [1, 2]
        assert a.at == [0.0, 10.0]
        await stage.assert_at_rest()


async def test_a_newcomer_does_not_overtake_those_who_wait():
    script = Script("done", lasts=1.0)
    async with staged(offer("a", script, max_concurrency=1)) as stage:
        await stage.request()  # So that discovery knows.
        script.calls.clear()
        requests = [asyncio.create_task(stage.request(input=number)) for number in range(3)]
        served = 1
        while len(script.calls) < 3:
            # Somebody new in every turn of the loop, also in the one in which a place becomes free.
            if len(requests) < 200:
                requests.append(asyncio.create_task(stage.request(input=len(requests), timeout=500)))
                await steps(1)
            else:
                await asyncio.sleep(served)
        await asyncio.gather(*requests)
        assert [call.input for call in script.calls] == list(range(len(requests)))


@pytest.mark.parametrize(
    ("limits", "reason"),
    [({"max_concurrency": 1}, BulkheadFull), ({"max_concurrency": 9, "rate_limit": 0.001}, "RateLimited")],
    ids=["place", "tokens"],
)
async def test_who_waits_in_vain_ends_in_time_and_learns_for_what(limits: dict[str, Any], reason: Any):
    script = Script("done", lasts=50.0)
    async with staged(offer("a", script, timeout=100.0, **limits)) as stage:
        busy = asyncio.create_task(stage.request(timeout=100))
        await steps(10)
        with pytest.raises(Exception, match=r".") as failed:
            await stage.request(timeout=3)
        assert type(failed.value).__name__ == getattr(reason, "__name__", reason)
        assert now() <= 3.0
        await busy
        await stage.assert_at_rest()


async def test_who_waits_for_an_open_breaker_in_vain_fails_at_once_and_in_time_gets_through():
    script = Script(*[flaky("a")] * 5, "done")
    async with staged(offer("a", script), retry=Retry(max_retries=0), breaker=FRAGILE) as stage:
        await trip(stage, script)
        with pytest.raises(BreakerOpen):
            await stage.request(timeout=5)
        assert now() == 0.0
        assert (await stage.request(timeout=100)).output == "done"
        assert now() == pytest.approx(stage.of(BreakerOpened)[0].wait)


# Discovery, as requests see it.


async def test_a_registry_that_is_down_or_hangs_is_told_as_such():
    async def down(_: str) -> list[Listing]:
        raise OSError("no route")

    async def hangs(_: str) -> list[Listing]:
        await asyncio.get_running_loop().create_future()
        return []

    async with staged(offer("a", Script()), registry=down) as stage:
        with pytest.raises(RegistryDown, match="no route"):
            await stage.request()
    async with staged(offer("a", Script()), registry=hangs) as stage:
        with pytest.raises(RegistryDown):
            await stage.request(timeout=5)
        assert [event.error for event in stage.of(RequestEnded)] == ["RegistryDown"]


# Cancellation.


def paid_call() -> tuple[list[Listing], list[Script]]:
    script = Script("done")
    return [offer("a", script, price=10)], [script]


def reroute_then_retry() -> tuple[list[Listing], list[Script]]:
    a, b = Script(flaky("a"), "done"), Script(flaky("b"))
    return [offer("a", a, price=10), offer("b", b, price=11)], [a, b]


def repeated_under_its_key() -> tuple[list[Listing], list[Script]]:
    script = Script(ConnectionResetError("gone"), ConnectionResetError("gone"), "done")
    return [offer("a", script, price=10, idempotent="key")], [script]


def checked_first() -> tuple[list[Listing], list[Script]]:
    a, b, checks = Script("a"), Script("b"), list[str]()
    return [
        offer("a", a, price=10, check=unhealthy_for("a", checks)),
        offer("b", b, price=11, check=healthy_for("b", checks)),
    ], [a, b]


def crashing() -> tuple[list[Listing], list[Script]]:
    script = Script("b")
    bad = Listing(
        provider=Provider(name="a", services={"s"}, price=0),
        transport=lambda: Buggy(script, paid=False, idempotent="no", provider="a"),
    )
    return [bad, offer("b", script, price=11)], [script]


@pytest.mark.parametrize("scene", [paid_call, reroute_then_retry, repeated_under_its_key, checked_first, crashing])
async def test_a_request_cancelled_at_any_step_leaves_nothing_behind(scene: Any):
    finished = 0
    for k in range(60):
        listings, scripts = scene()
        async with staged(*listings) as stage:
            await stage.ref.ask(OpenAccount(name="acc", cap=1000), timeout=1)
            request = asyncio.create_task(stage.request(account="acc", health_check=scene is checked_first))
            await steps(k)
            request.cancel()
            await asyncio.wait([request])
            finished += not request.cancelled()
            await steps(5)
            await stage.assert_at_rest()
            account = await stage.account("acc")
            sent = [call for script in scripts for call in script.calls]
            if not sent:
                assert (account.held, account.settled) == (0, 0), k
            assert account.held + account.settled <= 11
            if request.cancelled():
                # Only a call that was sent and not answered can have cost something that nobody knows.
                assert account.settled in {0, 10, 11}
            else:
                assert account.held == 0
            assert len(stage.of(RequestEnded)) == (1 if k else 0)
        assert len(asyncio.all_tasks()) == 1
    assert 0 < finished < 60  # The sweep covers the whole request, and ends after it.


@pytest.mark.parametrize("what", ["place", "tokens", "money", "gate", "probe", "backoff"])
async def test_one_who_waits_and_is_cancelled_leaves_nothing_behind(what: str):
    script = Script("done", lasts=5.0)
    limits: dict[str, Any] = {"place": {"max_concurrency": 1}, "tokens": {"rate_limit": 0.1}}.get(what, {})
    if what == "gate":
        script.outcomes = [Throttled("slow", provider="a", retry_after=9.0), "done"]
    if what == "backoff":
        script.outcomes = [flaky("a"), "done"]
    retry = Retry(base=3.0, cap=3.0, jitter="none")
    for k in range(25):
        async with staged(offer("a", script, price=10, **limits), retry=retry) as stage:
            cap = 10 if what == "money" else 1000
            await stage.ref.ask(OpenAccount(name="acc", cap=cap), timeout=1)
            target = stage.actor.targets["a"]
            if what == "probe":
                target.state = type(target.state)(breaker=Open(epoch=1, until=0.0))
            first = asyncio.create_task(stage.request(account="acc"))
            await asyncio.sleep(script.lasts / 2 if what not in {"gate", "backoff"} else script.lasts + 0.5)
            waiting = [asyncio.create_task(stage.request(account="acc")) for _ in range(3)]
            await steps(k)
            for task in (*waiting, first):
                task.cancel()
            await asyncio.wait([first, *waiting])
            await steps(5)
            await stage.assert_at_rest()
            assert script.under_way == 0


@pytest.mark.parametrize("is_sent", [False, True])
async def test_a_cancelled_call_holds_money_only_if_the_gateway_had_sent_it(
    monkeypatch: pytest.MonkeyPatch, *, is_sent: bool
):
    async with staged(offer("a", Script(), price=10)) as stage:
        await stage.ref.ask(OpenAccount(name="acc", cap=1000), timeout=1)

        async def never(_target: Any, _call: ProviderCall, sending: Any) -> None:
            sending.is_sent = is_sent
            await asyncio.get_running_loop().create_future()

        monkeypatch.setattr(stage.actor.gateways, "call", never)
        request = asyncio.create_task(stage.request(account="acc"))
        await steps(10)
        request.cancel()
        await asyncio.wait([request])
        await steps(5)
        account = await stage.account("acc")
        assert (account.held, account.reserved) == (10 if is_sent else 0, 0)
        await stage.assert_at_rest()


async def test_of_many_calls_cancelled_at_any_step_just_those_that_were_sent_hold_money():
    admitted = sent = 0
    for k in range(20):
        script = Script("done", lasts=1.0)
        async with staged(offer("a", script, price=10, max_concurrency=300)) as stage:
            await stage.request()
            script.calls.clear()
            await stage.ref.ask(OpenAccount(name="acc", cap=10_000), timeout=1)
            requests = [asyncio.create_task(stage.request(account="acc")) for _ in range(300)]
            await steps(k)
            for request in requests:
                request.cancel()
            await asyncio.wait(requests)
            await steps(20)
            account = await stage.account("acc")
            assert (account.held, account.reserved) == (10 * len(script.calls), 0)
            admitted += stage.actor.targets["a"].calls - 1
            sent += len(script.calls)
            await stage.assert_at_rest()
    assert 0 < sent <= admitted


async def test_a_cancelled_call_that_had_been_sent_keeps_its_money_held():
    script = Script("done", lasts=1.0)
    async with staged(offer("a", script, price=10)) as stage:
        await stage.ref.ask(OpenAccount(name="acc", cap=1000), timeout=1)
        request = asyncio.create_task(stage.request(account="acc"))
        while not script.calls:
            await steps(1)
        request.cancel()
        await asyncio.wait([request])
        await steps(5)
        account = await stage.account("acc")
        assert (account.held, account.reserved) == (10, 0)
        assert [event.error for event in stage.of(CallEnded)] == ["Cancelled"]


async def test_a_request_whose_time_ends_at_the_very_moment_its_turn_comes_is_no_crash():
    script = Script("done", lasts=1.0)
    async with staged(offer("a", script, max_concurrency=1)) as stage:
        for offset in (-1e-9, -1e-10, 0.0, 1e-10, 1e-9):
            busy = asyncio.create_task(stage.request())
            await steps(10)
            late = asyncio.create_task(stage.request(timeout=1.0 + offset))
            await asyncio.wait([busy, late])
            assert late.exception() is None or isinstance(
                late.exception(), BulkheadFull | DeadlineTooShort | AllProvidersFailed
            )
        await stage.assert_at_rest()
        assert stage.of(ActorFailed) == []


async def test_leaving_the_system_ends_every_request_and_every_transport():
    closed: list[str] = []

    class Closing(FunctionTransport):
        async def aclose(self) -> None:
            closed.append(self.provider)

    script = Script("done", lasts=100.0)
    listing = Listing(
        provider=Provider(name="a", services={"s"}),
        transport=lambda: Closing(script, paid=False, idempotent="no", provider="a"),
        timeout=200.0,
        max_concurrency=3,
    )
    async with ActorSystem("stage") as system:
        stage = Stage(system, Market(providers=[listing]))
        tasks = [asyncio.create_task(stage.request(timeout=150)) for _ in range(10)]
        await steps(20)
        assert script.under_way == 3
    await asyncio.wait(tasks)
    assert all(isinstance(task.exception(), ActorCrashed | AskTimeout) for task in tasks)
    assert closed == ["a"]
    assert script.under_way == 0
    assert len(asyncio.all_tasks()) == 1


async def test_a_provider_that_is_eased_in_gets_only_a_part_of_the_requests():
    script = Script(*[flaky("a")] * 5, "a")
    config = BreakerConfig(open_for=5.0, jitter=0.0, slow_start=10.0)
    async with staged(offer("a", script, price=1), offer("b", Script("b"), price=2), breaker=config) as stage:
        for _ in range(6):
            assert (await stage.request(strategy="cheapest")).output == "b"
        await asyncio.sleep(6.0)
        assert (await stage.request(strategy="cheapest")).output == "a"
        outputs = [(await stage.request(strategy="cheapest")).output for _ in range(200)]
        assert 5 <= outputs.count("a") <= 50
        await asyncio.sleep(10.0)
        assert (await stage.request(strategy="cheapest")).output == "a"


# Whose task a call runs in.


@pytest.mark.parametrize("is_prompt", [True, False])
async def test_a_call_runs_in_the_task_of_its_request_only_where_it_ends_when_cancelled(is_prompt: bool):  # noqa: FBT001
    tasks: list[Any] = []

    async def answer(_call: ProviderCall) -> str:
        tasks.append(asyncio.current_task())
        await asyncio.sleep(1.0)
        return "done"

    def transport() -> FunctionTransport:
        return FunctionTransport(answer, paid=False, idempotent="no", provider="a", ends_when_cancelled=is_prompt)

    async with staged(Listing(provider=Provider(name="a", services={"s"}), transport=transport)) as stage:
        await stage.request()  # Only now is it known of whom to ask how.
        assert (await stage.request()).output == "done"
        assert (tasks[-1] is asyncio.current_task()) is is_prompt


async def test_a_call_that_will_not_end_holds_up_no_request_beyond_its_deadline():
    async def deaf(_call: ProviderCall) -> str:
        for _ in range(10):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(3.0)
        return "too late"

    listing = Listing(
        provider=Provider(name="a", services={"s"}),
        transport=lambda: FunctionTransport(deaf, paid=False, idempotent="no", provider="a"),
        timeout=1.0,
    )
    async with staged(listing, offer("b", Script("b"), price=2)) as stage:
        assert (await stage.request(timeout=5.0)).output == "b"
        assert now() == pytest.approx(1.0 + TRANSPORT_GRACE)
        await asyncio.sleep(60.0)  # It does end, at last.


async def test_a_bug_met_by_one_request_harms_no_other_and_nothing_that_is_known(monkeypatch: pytest.MonkeyPatch):
    a = Script(lasts=1.0)
    async with staged(offer("a", a, price=1)) as stage:
        others = [asyncio.create_task(stage.request(idempotency_key=f"k{number}")) for number in range(3)]
        await asyncio.sleep(0.5)
        with monkeypatch.context() as patch:
            patch.setattr(choosing_module, "admit", lambda *_args, **_terms: 1 / 0)
            with pytest.raises(Unclassified, match="a bug while it was served: ZeroDivisionError") as failed:
                await stage.request()
        assert (failed.value.charged, type(failed.value.__cause__)) == ("no", ZeroDivisionError)
        assert [(await one).output for one in others] == ["done"] * 3
        assert len(stage.instances) == 1
        await stage.assert_at_rest()


@pytest.mark.parametrize("idempotent", ["no", "key", "repeatable"])
async def test_a_mistake_found_after_a_paid_call_was_sent_does_not_take_the_money_back(idempotent: str):
    a, b = Script(KeyError("choice")), Script("b")
    async with staged(offer("a", a, price=1, idempotent=idempotent), offer("b", b, price=2)) as stage:
        with pytest.raises(
            OutcomeUnknown, match="'a' may have been paid for a call that failed: 'a': KeyError"
        ) as failed:
            await stage.request()
        assert isinstance(failed.value.__cause__, Permanent)
        assert failed.value.key is not None
        assert (len(a.calls), len(b.calls)) == (1, 0)


class Quitting(Supervisor):
    """Crashes when it is told to open a quota."""

    @handles(OpenQuota)
    def open_quota(self, message: OpenQuota) -> Any:
        raise RuntimeError("a bug")


async def test_who_was_isolated_by_hand_stays_so_when_the_supervisor_restarts():
    market = Market(providers=[offer("a", Script("a")), offer("b", Script("b"), price=2)])
    async with ActorSystem("stage", seed=1) as system:
        supervisor = system.spawn(lambda: Quitting(market))
        await supervisor.ask(Isolate(provider="a"), timeout=1.0)
        with pytest.raises(ActorCrashed):
            await supervisor.ask(OpenQuota(name="q", rate=1.0), timeout=1.0)
        assert (await smart_request(supervisor, service="s", input="x")).output == "b"
        await supervisor.ask(Release(provider="a"), timeout=1.0)
        assert (await smart_request(supervisor, service="s", input="x", strategy="cheapest")).output == "a"


async def test_who_is_released_by_hand_is_asked_at_once_whatever_it_has_said():
    a = Script(Throttled("slow down", provider="a", retry_after=1e6), "done")
    async with staged(offer("a", a), retry=Retry(max_retries=0)) as stage:
        with pytest.raises(AllProvidersFailed):
            await stage.request()
        with pytest.raises(RateLimited):
            await stage.request()
        await stage.ref.ask(Isolate(provider="a"), timeout=1.0)
        await stage.ref.ask(Release(provider="a"), timeout=1.0)
        assert (await stage.request()).output == "done"


async def test_a_provider_that_nobody_lists_any_more_is_forgotten_and_its_gateway_stopped():
    closed: list[str] = []

    class Door(FunctionTransport):
        async def aclose(self) -> None:
            closed.append(str(self.provider))

    async def answer(call: ProviderCall) -> str:
        if call.provider == "0-bad":
            raise flaky("0-bad")
        return "done"

    async def registry(_service: str) -> list[Listing]:
        hour = int(now() // 3600)
        return [
            Listing(
                provider=Provider(name=name, services={"s"}, price=price),
                transport=lambda name=name: Door(answer, paid=False, idempotent="repeatable", provider=name),
            )
            for price, name in enumerate([f"{hour}-bad", f"{hour}-good"])
        ]

    async with staged(offer("fixed", Script()), registry=registry, retry=Retry(max_retries=0)) as stage:
        for _ in range(6 * 60):  # For six hours, once a minute.
            assert (await stage.request(strategy="cheapest")).output == "done"
            await asyncio.sleep(60.0)
        names = {*stage.actor.targets}
        assert {"fixed", "5-bad", "5-good"} <= names
        assert names.isdisjoint({"0-bad", "0-good", "1-bad", "2-good", "3-bad"})
        assert {"0-bad", "0-good", "3-bad"} <= {*closed}
        assert stage.of(BreakerOpened)[0].provider == "0-bad"
        assert "0-bad" in [event.provider for event in stage.of(BreakerClosed)]
        await stage.assert_at_rest()
