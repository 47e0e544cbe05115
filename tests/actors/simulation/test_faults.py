"""Each fault at the transport: what a call meets, and what the cast is told."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from actors import CallFailed, OutcomeUnknown, ProviderCall, ProviderReply, Throttled, Transient
from actors.errors import ConnectionFailed, QuotaExhausted
from actors.money import Micros
from actors.simulation import (
    BrownOut,
    Bug,
    Flapping,
    Hanging,
    LostReplies,
    Outage,
    OutOfQuota,
    PriceChange,
    ProviderFault,
    RegistryOutage,
    SimulatedProvider,
    SlowLoris,
    ThrottleStorm,
    WrongAnswers,
    random_provider_faults,
)
from actors.simulation.outcome import ConnectionRefused, Draws, ErrorReply, Served, outcome_of_call, outcome_of_check
from runtime.simulation import InvariantBroken, Simulation

if TYPE_CHECKING:
    from runtime.simulation import Fault

EVEN = Draws(0.5, 0.5, 0.5, 0.5)
LIMIT = 10.0


def call_of(key: str = "k", *, max_cost: int = 7, timeout: float = LIMIT) -> ProviderCall:
    return ProviderCall(
        service="s", input=key, request_id=key, idempotency_key=key, max_cost=Micros(max_cost), timeout=timeout
    )


def outcome_of(*faults: Fault, at: float = 0.0, **terms: Any) -> tuple[Any, float, SimulatedProvider]:
    """Make one call at `at` to a provider that is struck; return the outcome, how long it took, and the provider."""

    async def scenario(simulation: Simulation) -> tuple[Any, float, SimulatedProvider]:
        provider = SimulatedProvider(simulation, "alder", services={"s"}, **{"price": Micros(7)} | terms)
        await asyncio.sleep(at)
        transport = provider.transport()
        try:
            outcome: Any = await transport.call(call_of())
        except (CallFailed, KeyError) as error:
            outcome = error
        await transport.aclose()
        return outcome, simulation.now() - at, provider

    return Simulation(1, faults=faults).run(scenario).result


def check_of(*faults: Fault) -> Any:
    """Return what a health check that may take a second raises; None for a healthy provider."""

    async def scenario(simulation: Simulation) -> Any:
        transport = SimulatedProvider(simulation, "alder", services={"s"}).transport()
        try:
            await transport.check(timeout=1.0)
        except (CallFailed, KeyError) as error:
            return error

    return Simulation(1, faults=faults).run(scenario).result


def test_without_a_fault_a_call_is_answered_and_charged():
    outcome, took, provider = outcome_of()
    assert outcome == ProviderReply(output="k", cost=Micros(7))
    assert 0.05 <= took <= 0.2
    assert provider.charged == {"k": [7]}


def test_an_outage_refuses_connections_so_that_nothing_runs():
    outcome, took, provider = outcome_of(Outage(provider="alder"))
    assert type(outcome) is ConnectionFailed
    assert outcome.outcome == "not_started"
    assert took == 0.05
    assert (provider.calls, provider.charged) == (0, {})


def test_a_fault_of_another_provider_does_nothing():
    assert isinstance(outcome_of(Outage(provider="birch", may_miss=True))[0], ProviderReply)


def test_a_fault_strikes_all_that_its_pattern_matches():
    assert isinstance(outcome_of(Outage(provider="a*"))[0], ConnectionFailed)


@pytest.mark.parametrize(("at", "is_up"), [(0.9, True), (1.1, False), (2.9, False), (3.1, True), (4.1, False)])
def test_one_who_flaps_comes_and_goes(at: float, is_up: bool):  # noqa: FBT001
    outcome, _, _ = outcome_of(Flapping(provider="*", up=1.0, down=2.0), at=at)
    assert isinstance(outcome, ProviderReply) is is_up


def test_flapping_begins_with_its_spell():
    assert isinstance(outcome_of(Flapping(provider="*", at=5.0, up=1.0, down=2.0), at=6.5)[0], ConnectionFailed)
    assert isinstance(outcome_of(Flapping(provider="*", at=5.0, up=1.0, down=2.0), at=5.5)[0], ProviderReply)


def test_a_brown_out_answers_503_to_its_part_of_the_calls():
    faults = [BrownOut(provider="*", rate=0.3)]
    assert outcome_of_call(faults, now=0.0, draws=EVEN._replace(refused=0.29)) == ErrorReply(503)
    assert outcome_of_call(faults, now=0.0, draws=EVEN._replace(refused=0.3)) == Served()


def test_a_503_is_transient_and_costs_nothing():
    outcome, _, provider = outcome_of(BrownOut(provider="*", rate=1.0))
    assert type(outcome) is Transient
    assert (outcome.status, outcome.charged) == (503, "no")
    assert provider.charged == {}


def test_a_slow_loris_does_the_work_and_charges_long_after_the_client_has_gone():
    outcome, took, provider = outcome_of(SlowLoris(provider="*", latency=60.0))
    assert type(outcome) is OutcomeUnknown
    assert took == LIMIT
    assert (provider.charged, provider.abandoned, provider.under_way) == ({"k": [7]}, 1, 0)


def test_one_who_hangs_never_answers_and_does_nothing():
    outcome, took, provider = outcome_of(Hanging(provider="*"))
    assert type(outcome) is OutcomeUnknown
    assert took == LIMIT
    assert (provider.calls, provider.charged, provider.abandoned) == (1, {}, 0)


def test_a_timeout_of_a_call_that_may_be_repeated_is_transient():
    outcome, _, _ = outcome_of(Hanging(provider="*"), idempotent="key")
    assert type(outcome) is Transient
    assert outcome.charged == "held"


def test_a_timeout_of_a_call_that_costs_nothing_is_transient():
    outcome, _, _ = outcome_of(Hanging(provider="*"), price=0)
    assert type(outcome) is Transient
    assert outcome.charged == "no"


@pytest.mark.parametrize("retry_after", [None, 0.0, 30.0])
def test_a_throttle_storm_answers_429(retry_after: float | None):
    outcome, _, _ = outcome_of(ThrottleStorm(provider="*", retry_after=retry_after))
    assert type(outcome) is Throttled
    assert outcome.retry_after == retry_after


@pytest.mark.parametrize("dialect", ["429", "402", "403", "400"])
def test_whoever_is_out_of_quota_is_understood_in_every_dialect(dialect: Any):
    outcome, _, provider = outcome_of(OutOfQuota(provider="*", dialect=dialect))
    assert type(outcome) is QuotaExhausted
    assert outcome.status == int(dialect)
    assert provider.charged == {}


def test_a_wrong_answer_looks_like_any_other_and_is_charged():
    outcome, _, provider = outcome_of(WrongAnswers(provider="*", output="nonsense"))
    assert outcome == ProviderReply(output="nonsense", cost=Micros(7))
    assert provider.income == 7


def test_only_a_part_of_the_answers_is_wrong():
    faults = [WrongAnswers(provider="*", rate=0.5)]
    assert outcome_of_call(faults, now=0.0, draws=EVEN._replace(wrong=0.4)) == Served(wrong=faults[0])
    assert outcome_of_call(faults, now=0.0, draws=EVEN) == Served()


def test_a_lost_reply_is_charged_although_nobody_knows():
    outcome, _, provider = outcome_of(LostReplies(provider="*"))
    assert type(outcome) is OutcomeUnknown
    assert outcome.charged == "held"
    assert provider.charged == {"k": [7]}


def test_a_bug_of_the_transport_is_no_failed_call():
    outcome, _, provider = outcome_of(Bug(provider="*"))
    assert type(outcome) is KeyError
    assert (provider.calls, provider.under_way) == (0, 0)


def test_what_strikes_a_call_first_on_its_way_decides():
    faults = [ThrottleStorm(provider="*"), BrownOut(provider="*", rate=1.0), OutOfQuota(provider="*")]
    assert outcome_of_call(faults, now=0.0, draws=EVEN) == ErrorReply(429, "Too many requests.", None)
    assert (
        outcome_of_call([*faults, Hanging(provider="*"), Outage(provider="*")], now=0.0, draws=EVEN)
        == ConnectionRefused()
    )


def test_a_fault_that_is_over_does_nothing():
    assert isinstance(outcome_of(Outage(provider="*", lasts=5.0), at=4.9)[0], CallFailed)
    assert isinstance(outcome_of(Outage(provider="*", lasts=5.0), at=5.0)[0], ProviderReply)


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (Outage(provider="*"), ConnectionFailed),
        (BrownOut(provider="*", rate=1.0), Transient),
        (Hanging(provider="*"), Transient),
        (SlowLoris(provider="*", latency=2.0), Transient),
        (Bug(provider="*"), KeyError),
        (ThrottleStorm(provider="*"), type(None)),
        (OutOfQuota(provider="*"), type(None)),
        (LostReplies(provider="*"), type(None)),
    ],
)
def test_a_health_check_finds_what_is_not_about_money_or_quotas(fault: ProviderFault, found: type):
    assert type(check_of(fault)) is found


def test_a_flapping_provider_answers_checks_while_it_is_up():
    assert outcome_of_check([Flapping(provider="*", up=1.0, down=1.0)], now=0.5, draws=EVEN) == Served()


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Outage(provider=""), "provider must be a name"),
        (lambda: Outage(provider="*", at=-1.0), "at must be >= 0"),
        (lambda: BrownOut(provider="*", rate=0.0), "rate must be above 0"),
        (lambda: WrongAnswers(provider="*", rate=1.5), "rate must be above 0"),
        (lambda: LostReplies(provider="*", rate=-1), "rate must be above 0"),
        (lambda: Flapping(provider="*", up=0.0, down=1.0), "up must be > 0 seconds"),
        (lambda: Flapping(provider="*", up=1.0, down=float("inf")), "down must be > 0 seconds and finite"),
        (lambda: SlowLoris(provider="*", latency=0), "latency must be > 0"),
        (lambda: ThrottleStorm(provider="*", retry_after=-1.0), "retry_after must be >= 0"),
        (lambda: OutOfQuota(provider="*", dialect="418"), "dialect must be one of 429, 402, 403, 400, got '418'"),
        (lambda: PriceChange(provider="*", price=Micros(-1)), "price: amount .* is negative"),
        (lambda: PriceChange(provider="", price=Micros(1)), "provider must be a name"),
        (lambda: random_provider_faults(random.Random(1), providers=()), "providers must have at least one name"),
    ],
)
def test_a_fault_that_cannot_be_is_refused(make: Any, problem: str):
    with pytest.raises(ValueError, match=problem):
        make()


def test_random_faults_are_a_plan_that_the_dice_decide():
    prices = ("0.01", "0.02")
    plans = [
        random_provider_faults(
            random.Random(seed), providers=["a", "b*"], within=30.0, max_faults=6, prices=("0.01", "0.02")
        )
        for seed in range(300)
    ]
    assert plans[7] == random_provider_faults(
        random.Random(7), providers=["a", "b*"], within=30.0, max_faults=6, prices=prices
    )
    assert {len(plan) for plan in plans} == set(range(7))
    drawn = [fault for plan in plans for fault in plan]
    assert all(0 <= fault.at <= 30 for fault in drawn)
    assert all([fault.at for fault in plan] == sorted(fault.at for fault in plan) for plan in plans)
    kinds = {type(fault) for fault in drawn}
    assert {PriceChange, RegistryOutage} <= kinds
    assert set(ProviderFault.__subclasses__()) <= kinds
    assert {fault.provider for fault in drawn if isinstance(fault, ProviderFault)} == {"a", "b*"}


def test_prices_change_only_where_there_are_some_to_choose_from():
    plans = [random_provider_faults(random.Random(seed), providers=["a"]) for seed in range(300)]
    assert not any(isinstance(fault, PriceChange) for plan in plans for fault in plan)


def test_a_misspelt_provider_fails_the_run_and_an_async_answer_is_awaited():
    async def answer(call: ProviderCall) -> int:
        await asyncio.sleep(0.1)
        return call.input * 2

    async def scenario(simulation: Simulation) -> object:
        provider = SimulatedProvider(simulation, "search", services={"s"}, answer=answer)
        call = ProviderCall(service="s", input=2, request_id="k", idempotency_key="k", max_cost=Micros(0), timeout=5.0)
        return (await provider.transport().call(call)).output

    assert Simulation(1).run(scenario).result == 4
    with pytest.raises(InvariantBroken, match="no provider 'serch'; did you mean 'search'"):
        Simulation(1, faults=[Outage(provider="serch")]).run(scenario)


def test_a_run_is_awaited_in_an_event_loop_that_goes_on():
    async def scenario() -> str:
        await asyncio.sleep(86_400)
        return "done"

    assert asyncio.run(Simulation(1).arun(scenario)).result == "done"
