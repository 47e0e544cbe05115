"""A mistake of one caller is refused when the message is made, and never harms others that share an actor with it."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from actors import (
    Acquire,
    BreakerConfig,
    Bulkhead,
    FunctionTransport,
    GetStatus,
    Isolate,
    Limiter,
    Listing,
    Market,
    Provider,
    ProviderFilter,
    ProviderReply,
    RateLimiter,
    Retry,
    SmartRequest,
    Supervisor,
    Throttled,
    Transient,
    concurrent,
    robust_batch,
    smart_request,
)
from actors.discovery import Discover
from actors.discovery.subscribers import SubscribeProviders, UnsubscribeProviders
from actors.limits.reported import ReportedLimit
from actors.money import Micros
from actors.monitor import BudgetRule, LatencyRule, SuccessRateRule
from actors.providers import Requirement, ScoreAnswer
from actors.rate_limiter.messages import LimiterGrant, ReportThrottled, Settle
from actors.supervisor import OpenQuota
from actors.supervisor.pipeline.scores import MAX_SCORED
from actors.validation import check_count
from runtime import ActorSystem

GRANT = LimiterGrant(at=0.0, number=1)
HUGE = 10**400
MADE_WRONGLY: list[tuple[Any, str]] = [
    # Messages of actors that serve all.
    (lambda: SmartRequest(service="s", input=1, timeout=HUGE), "timeout must be > 0 and at most"),
    (
        lambda: SmartRequest(service="s", input=1, timeout=1.0, budget=-1),
        "budget: amount -1 is negative",
    ),
    (lambda: SmartRequest(service="s", input=1, timeout=math.nan), "timeout must be > 0"),
    (lambda: ScoreAnswer(service=[], score=0.5, request_id="r"), "service must be a str"),
    (lambda: ScoreAnswer(service="s", score=0.5, request_id=[]), "request_id must be a str"),
    (lambda: ScoreAnswer(service="s", score=0.5, provider={}), "provider must be a str"),
    (lambda: ScoreAnswer(service="s", score="1", provider="p"), "score must be from 0 to 1"),
    (lambda: OpenQuota(name="q", rate=HUGE), "rate must be > 0"),
    (lambda: OpenQuota(name="q", rate="9"), "rate must be > 0"),
    (lambda: OpenQuota(name="q", rate=1.0, burst=math.nan), "burst must be a whole number"),
    (lambda: OpenQuota(name=None, rate=1.0), "name must be a str"),
    (lambda: Isolate(provider=[]), "provider must be a str"),
    (lambda: Acquire(weight=math.nan), "weight must be a whole number"),
    (lambda: Acquire(weights={"requests": math.nan}), "the weight in requests must be a whole number"),
    (lambda: Acquire(tenant=[]), "tenant must be a str"),
    (lambda: Settle(grant=None), "grant must be the answer to an Acquire"),
    (lambda: Settle(grant=GRANT, outcome="lost"), "outcome must be one of"),
    (lambda: Settle(grant=GRANT, limits=({"limit": 1},)), "limits must be a tuple of ReportedLimit"),
    (lambda: ReportThrottled(retry_after="5"), "retry_after must be a number of seconds"),
    (lambda: ReportThrottled(grant=7), "grant must be"),
    (lambda: SubscribeProviders(service="s", subscriber=None), "subscriber must be the ref of an actor"),
    (lambda: UnsubscribeProviders(service=[], subscriber=None), "service must be a str"),
    (lambda: Discover(service="s", healthy_only=[[]]), "healthy_only must be True or False"),
    # What they are made of.
    (lambda: ProviderFilter(required_capabilities={7}), "a name in required_capabilities must be a str"),
    (lambda: ProviderFilter(required_capabilities={"en", None}), "a name in required_capabilities must be a str"),
    (lambda: Requirement(capabilities={7}), "a name in capabilities must be a str"),
    (lambda: Requirement(input_tokens="9"), "input_tokens must be a whole number"),
    (lambda: Provider(name="a", services={7}), "a name in services must be a str"),
    (
        lambda: Provider(name="a", services={"s"}, price=2**63),
        "price: amount 9223372036854775808 is above the largest",
    ),
    # What transports raise and return.
    (lambda: Throttled("slow", retry_after="5"), "retry_after must be a number of seconds, got '5'"),
    (lambda: Throttled("slow", retry_after=True), "retry_after must be a number of seconds"),
    (lambda: Throttled("slow", retry_after=math.nan), "retry_after must be >= 0"),
    (lambda: Throttled("slow", retry_after=-1.0), "retry_after must be >= 0"),
    (lambda: Transient("down", charged="maybe"), "charged must be one of no, held, yes"),
    (lambda: Transient("down", outcome="lost"), "outcome must be one of"),
    (lambda: Transient("down", wire_calls="x"), "wire_calls must be a whole number"),
    (lambda: ProviderReply(output=1, weights={"tokens": "870"}), "the weight in tokens must be a whole number"),
    (lambda: ProviderReply(output=1, weights={"tokens": -3}), "the weight in tokens must be >= 0"),
    (lambda: ProviderReply(output=1, weights=None), "weights must be like"),
    (lambda: ProviderReply(output=1, limits=[]), "limits must be a tuple of ReportedLimit"),
    (lambda: ProviderReply(output=1, wire_calls=math.nan), "wire_calls must be >= 0"),
    (lambda: ReportedLimit(limit="100"), "limit must be a number >= 0"),
    (lambda: ReportedLimit(reset=math.inf), "reset must be a number >= 0"),
    # Counts.
    (lambda: Bulkhead("b", math.nan), "max_concurrency must be a whole number"),
    (lambda: Bulkhead("b", max_concurrency=True), "max_concurrency must be a whole number"),
    (lambda: Retry(max_retries=math.nan), "max_retries must be a whole number"),
    (lambda: BreakerConfig(failure_threshold=math.nan), "failure_threshold must be a whole number"),
    (lambda: Limiter("l", rate=1.0, burst=1, max_waiting=1.5), "max_waiting must be a whole number"),
    (lambda: Listing(provider=Provider(name="a", services={"s"}), transport=list, max_concurrency=HUGE), "at most 2"),
    # Rules of alerts.
    (lambda: SuccessRateRule(scope="providers"), "scope of rule 'success_rate' must be one of all, provider, service"),
    (lambda: SuccessRateRule(window=None), "window of rule 'success_rate' must be > 0"),
    (lambda: LatencyRule(threshold=1.0, clear_threshold=1.0, window="60"), "window of rule"),
    (lambda: BudgetRule(cap=Micros(5), window=math.inf), "window of rule 'budget' must be > 0"),
]


@pytest.mark.parametrize(("make", "problem"), MADE_WRONGLY, ids=lambda one: one if isinstance(one, str) else "")
def test_it_is_refused_when_it_is_made(make: Any, problem: str):
    with pytest.raises((TypeError, ValueError)) as refused:
        make()
    assert problem in str(refused.value)


def test_a_budget_over_all_time_has_no_window():
    assert BudgetRule(cap=Micros(5)).window is None


def test_an_absurd_count_is_named_by_its_length():
    with pytest.raises(ValueError, match=r"burst must be at most 2\^53, got a number of 333 hexadecimal digits"):
        check_count("burst", HUGE)


@pytest.mark.parametrize("retry_after", [10**400, 1e300, math.inf])
def test_a_retry_after_beyond_all_measure_is_shortened(retry_after: Any):
    assert Throttled("slow", retry_after=retry_after).retry_after == 365 * 86_400.0


async def test_so_are_the_limits_of_calls_at_once():
    for bad in (1.5, math.nan, "3"):
        with pytest.raises(TypeError, match="max_concurrency must be a whole number"):
            await concurrent([1], lambda one: asyncio.sleep(0, one), max_concurrency=bad)  # type: ignore[arg-type]
    async with ActorSystem("stage") as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing_of(lambda: "done")])))
        with pytest.raises(TypeError, match="max_concurrency must be a whole number"):
            async with robust_batch(supervisor, [1], service="s", max_concurrency=1.5):  # type: ignore[arg-type]
                pass


def listing_of(answer: Any) -> Listing:
    async def call(_call: Any) -> Any:
        return answer()

    return Listing(
        provider=Provider(name="a", services={"s"}),
        transport=lambda: FunctionTransport(call, paid=False, idempotent="repeatable", provider="a"),
        max_concurrency=2,
    )


def raising(**terms: Any) -> Any:
    def answer() -> Any:
        raise Throttled("slow", provider="a", **terms)

    return answer


def muttering() -> Any:
    error = Transient("down", provider="a")
    error.limits = ({"remaining": 1},)  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    raise error


@pytest.mark.parametrize(
    "answer",
    [
        raising(retry_after="5"),
        raising(retry_after=10**400),
        raising(charged="maybe"),
        muttering,
        lambda: ProviderReply(output=1, weights={"tokens": "870"}),  # type: ignore[dict-item]
        lambda: ProviderReply(output=1, limits=({"remaining": 1},)),  # type: ignore[arg-type]
        lambda: ProviderReply(output=1, limits=(ReportedLimit(limit="100", window=60),)),  # type: ignore[arg-type]
    ],
)
async def test_whatever_a_transport_says_its_places_come_back(answer: Any):
    async with ActorSystem("stage") as system:
        supervisor = system.spawn(
            lambda: Supervisor(Market(providers=[listing_of(answer)], retry=Retry(max_retries=0)))
        )
        for _ in range(3):
            with pytest.raises(Exception, match="a"):
                await smart_request(supervisor, service="s", input=1, timeout=1.0)
        (status,) = await supervisor.ask(GetStatus(), timeout=1.0)
        assert status.under_way == 0


async def test_scores_of_any_service_and_provider_do_not_grow_without_bound():
    made: list[Supervisor] = []

    def make() -> Supervisor:
        made.append(Supervisor(Market(providers=[listing_of(lambda: "done")])))
        return made[-1]

    async with ActorSystem("stage") as system:
        supervisor = system.spawn(make)
        for number in range(3_000):
            supervisor.tell(ScoreAnswer(service="s", score=0.5, provider=f"p{number}"))
            supervisor.tell(ScoreAnswer(service=f"s{number}", score=0.5, provider="a"))
        await supervisor.ask(ScoreAnswer(service="s", score=1.0, provider="a"), timeout=1.0)
        bandits = made[0].deps.scores.bandits
        assert len(bandits) <= MAX_SCORED
        assert len(bandits["s"].arms) <= MAX_SCORED
        assert "a" in bandits["s"].arms


async def test_a_quota_goes_on_for_all_its_callers():
    async with ActorSystem("stage") as system:
        quota = system.spawn(lambda: RateLimiter("quota", rate=1.0))
        waiting = [asyncio.create_task(quota.ask(Acquire(), timeout=60.0)) for _ in range(3)]
        with pytest.raises(TypeError):
            await quota.ask(Acquire(weight=math.nan), timeout=1.0)  # type: ignore[arg-type]
        assert [round((await one).at) for one in waiting] == [0, 1, 2]
