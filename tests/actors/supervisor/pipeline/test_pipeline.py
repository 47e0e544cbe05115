"""The way of one request over providers that fail on plan; in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import actors.supervisor.targets.target as target_module
from actors import (
    AllProvidersFailed,
    BreakerConfig,
    FunctionTransport,
    Listing,
    Market,
    NoProvider,
    Permanent,
    Provider,
    ProviderFilter,
    Retry,
    SmartRequest,
    Throttled,
    Transient,
    Unclassified,
)
from actors.errors import RegistryDown
from actors.events import BreakerOpened, RequestEnded, Rerouted, Retried
from actors.money import Micros
from actors.policies.retry import RetryBudget
from runtime import ActorSystem
from tests.actors.supervisor.stage import Script, Stage, flaky, now, offer, staged, steps

if TYPE_CHECKING:
    from actors import ProviderCall


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
        "best": Provider(name="best", services={"s"}, price=Micros(9), reputation=99, response_time=5),
        "fast": Provider(name="fast", services={"s"}, price=Micros(8), reputation=10, response_time=0.1),
        "cheap": Provider(name="cheap", services={"s"}, price=Micros(1), reputation=20, response_time=4),
        "cheaper-than-none": Provider(name="cheaper-than-none", services={"s"}, price=Micros(2), reputation=30),
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


async def test_the_retry_after_of_a_lone_429_holds_back_its_own_call_alone():
    script = Script(Throttled("slow down", provider="a", retry_after=7.0), "done")
    async with staged(offer("a", script)) as stage:
        first = asyncio.create_task(stage.request())
        await steps(20)
        second = asyncio.create_task(stage.request())
        await asyncio.gather(first, second)
        assert script.at[:2] == [0.0, 0.0]
        assert 7.0 <= script.at[2] <= 7.5
        await stage.assert_at_rest()


async def test_retry_after_is_honoured_and_gates_every_caller_of_a_provider_that_refuses_many():
    script = Script(*[Throttled("slow down", provider="a", retry_after=7.0)] * 8, "done")
    async with staged(offer("a", script)) as stage:
        await asyncio.gather(*(stage.request(timeout=60) for _ in range(9)))
        later = [at for at in script.at if at > 0]
        # No call comes before the gate opens, and behind it they do not come together.
        assert min(later) >= 7.0
        assert len(set(later)) > 1
        await stage.assert_at_rest()


async def test_a_retry_after_beyond_the_deadline_reroutes_at_once():
    a, b = Script(Throttled("later", provider="a", retry_after=60.0)), Script("b")
    async with staged(offer("a", a, price=1), offer("b", b, price=2)) as stage:
        assert (await stage.request(timeout=5)).output == "b"
        assert now() == 0.0
        assert len(a.calls) == 1


class TooManyCalls(Exception):
    status_code = 429


async def test_a_quota_of_a_minute_is_waited_for_and_one_of_a_day_is_not():
    minute = TooManyCalls("on requests per minute (RPM): Limit 60. Please try again in 1m30s.")
    a = Script(minute, "a")
    async with staged(offer("a", a)) as stage:
        assert (await stage.request(timeout=500)).output == "a"
        assert 90.0 <= a.at[1] - a.at[0] <= 100.0
    day = TooManyCalls("{'quotaId': 'GenerateRequestsPerDayPerProjectPerModel', 'retryDelay': '36s'}")
    a, b = Script(day, "a"), Script("b")
    async with staged(offer("a", a, price=1), offer("b", b, price=2)) as stage:
        began = now()
        assert (await stage.request(timeout=500)).output == "b"
        assert (len(a.calls), now()) == (1, began)
    a = Script(day, "a")
    async with staged(offer("a", a)) as stage:
        with pytest.raises(AllProvidersFailed):
            await stage.request(timeout=500)
        assert (len(a.calls), now()) == (1, began)


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
        await steps(1)  # The supervisor starts.
        target = stage.actor.targets.named("a")
        target.state = type(target.state)(retries=RetryBudget(tokens=0.0, ratio=0.0, min_per_second=0.0))
        assert (await stage.request()).output == "done"
        assert len({call.idempotency_key for call in script.calls}) == 1


async def test_a_retry_waits_only_until_its_budget_has_a_whole_token_again():
    script = Script(flaky("a"), "done")
    async with staged(offer("a", script)) as stage:
        await steps(1)  # The supervisor starts.
        target = stage.actor.targets.named("a")
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


async def test_a_bug_met_by_one_request_harms_no_other_and_nothing_that_is_known(monkeypatch: pytest.MonkeyPatch):
    a = Script(lasts=1.0)
    async with staged(offer("a", a, price=1)) as stage:
        others = [asyncio.create_task(stage.request(idempotency_key=f"k{number}")) for number in range(3)]
        await asyncio.sleep(0.5)
        with monkeypatch.context() as patch:
            patch.setattr(target_module, "admit", lambda *_args, **_terms: 1 / 0)
            with pytest.raises(Unclassified, match="a bug while it was served: ZeroDivisionError") as failed:
                await stage.request()
        assert (failed.value.charged, type(failed.value.__cause__)) == ("no", ZeroDivisionError)
        assert [(await one).output for one in others] == ["done"] * 3
        assert len(stage.instances) == 1
        await stage.assert_at_rest()
