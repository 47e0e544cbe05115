import asyncio
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors.families import Transient
from actors.policies.hedge import Hedge, HedgeConfig, LatencyQuantile, budget_of, hedge_delay
from runtime.simulation import Simulation, explore
from tests.proofs import repeated

CONFIG = HedgeConfig()


def now():
    return asyncio.get_running_loop().time()


def seasoned(delay=1.0, tokens=10.0, **fields):
    """Return a hedge that makes its second call after `delay`, and may make some."""
    hedge = Hedge(HedgeConfig(**fields), idempotent=True, paid=False)
    hedge.estimate = LatencyQuantile(delay, 1000)
    hedge.budget = msgspec.structs.replace(hedge.budget, tokens=tokens)
    return hedge


class Calls:
    """Calls that take as long as planned, one after the other, and know what became of them."""

    def __init__(self, *plan):
        self.plan = list(plan)
        self.ended = []

    async def __call__(self):
        number = len(self.ended)
        self.ended.append("under way")
        what = self.plan[number]
        try:
            await asyncio.sleep(what if isinstance(what, float) else what[0])
        except asyncio.CancelledError:
            self.ended[number] = "cancelled"
            raise
        if not isinstance(what, float):
            self.ended[number] = "failed"
            raise what[1]
        self.ended[number] = "answered"
        return number


@given(st.lists(st.booleans(), max_size=2000), st.floats(0.01, 1.0))
def test_second_calls_are_never_more_than_their_part_of_all_calls(wants, ratio):
    config = HedgeConfig(ratio=ratio)
    budget, hedged = budget_of(config), 0
    for calls, wants_one in enumerate(wants, start=1):
        budget = budget.deposit(float(calls))
        left = budget.withdraw(float(calls)) if wants_one else None
        if left is not None:
            budget = left
            hedged += 1
        assert hedged <= ratio * calls + 1e-6
        assert 0 <= budget.tokens <= config.max_tokens


def test_one_call_in_twenty_can_be_hedged_and_no_more():
    budget, hedged = budget_of(CONFIG), 0
    for now in range(2000):
        budget = budget.deposit(now)
        left = budget.withdraw(now)
        if left is not None:
            budget, hedged = left, hedged + 1
    assert hedged == 100


@pytest.mark.parametrize("draw", ["expovariate", "uniform", "lognormvariate"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 60.0])
def test_the_estimate_is_near_the_quantile_of_any_latency(draw, scale):
    dice = random.Random(3)
    arguments = {"expovariate": (1.0,), "uniform": (0.5, 1.5), "lognormvariate": (0, 1)}[draw]
    estimate, late = LatencyQuantile(), 0
    for number in range(20_000):
        latency = scale * getattr(dice, draw)(*arguments)
        late += number >= 1000 and latency > estimate.seconds
        estimate = estimate.after(latency, quantile=0.95)
    assert 0.03 < late / 19_000 < 0.07


def test_before_enough_calls_nothing_is_late():
    estimate = LatencyQuantile()
    for _ in range(19):
        estimate = estimate.after(1.0, quantile=0.95)
    assert hedge_delay(estimate, CONFIG) is None
    assert hedge_delay(estimate.after(1.0, quantile=0.95), CONFIG) is not None


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        ({"idempotent": True, "paid": True}, "both calls may be charged"),
        ({"idempotent": False, "paid": False}, "may take effect twice"),
    ],
)
def test_what_may_not_happen_twice_is_refused_with_the_reason(declared, why):
    with pytest.raises(ValueError, match=why):
        Hedge(**declared)


async def test_a_call_in_time_is_made_once():
    hedge, calls = seasoned(), Calls(0.5)
    assert await hedge.execute(calls) == 0
    assert (now(), calls.ended, hedge.hedged) == (0.5, ["answered"], 0)


async def test_a_late_call_is_made_twice_and_the_first_answer_wins():
    hedge, calls = seasoned(), Calls(60.0, 0.5)
    assert await hedge.execute(calls) == 1
    assert (now(), calls.ended) == (1.5, ["cancelled", "answered"])
    assert (hedge.calls, hedge.hedged, hedge.won) == (1, 1, 1)


async def test_the_first_call_may_still_win():
    hedge, calls = seasoned(), Calls(1.2, 60.0)
    assert await hedge.execute(calls) == 0
    assert (now(), calls.ended, hedge.won) == (1.2, ["answered", "cancelled"], 0)


async def test_the_second_call_can_go_elsewhere():
    hedge, first, second = seasoned(), Calls(60.0), Calls(0.5)
    assert await hedge.execute(first, second) == 0
    assert (first.ended, second.ended) == (["cancelled"], ["answered"])


async def test_an_error_before_the_call_is_late_is_raised_at_once():
    hedge, calls = seasoned(), Calls((0.5, Transient("down")))
    with pytest.raises(Transient):
        await hedge.execute(calls)
    assert (now(), hedge.hedged) == (0.5, 0)


@pytest.mark.parametrize("plan", [((1.2, Transient("first")), 1.0), (2.0, (0.5, Transient("second")))])
async def test_an_error_of_one_leaves_the_word_to_the_other(plan):
    calls = Calls(*plan)
    assert await seasoned().execute(calls) in {0, 1}
    assert now() == 2.0
    assert sorted(calls.ended) == ["answered", "failed"]


async def test_if_both_fail_the_later_error_is_raised_from_the_earlier():
    calls = Calls((3.0, Transient("first")), (0.5, Transient("second")))
    with pytest.raises(Transient, match="first") as caught:
        await seasoned().execute(calls)
    assert str(caught.value.__cause__) == "second"


async def test_when_everything_is_slow_the_load_does_not_double():
    hedge = Hedge(idempotent=True, paid=False)
    made = 0

    async def call():
        nonlocal made
        made += 1
        await asyncio.sleep(1.0 if now() < 100 else 30.0)

    for _ in range(100):
        await hedge.execute(call)
    assert made == 100 + hedge.hedged
    made, before = 0, hedge.hedged
    await asyncio.gather(*(hedge.execute(call) for _ in range(1000)))
    assert made == 1000 + hedge.hedged - before
    # What was saved up, and one in twenty.
    assert made <= 1000 + 10 + 50
    assert hedge.hedged <= 0.05 * hedge.calls


async def test_without_budget_or_estimate_it_takes_no_task(monkeypatch):
    hedge = seasoned(tokens=0.0)

    async def call():
        return "answer"

    def fail(*_args, **_kwargs):
        raise AssertionError

    loop = asyncio.get_running_loop()
    for name in ("call_at", "call_later", "create_future", "create_task"):
        monkeypatch.setattr(loop, name, fail)
    answer = await hedge.execute(call)
    monkeypatch.undo()
    assert answer == "answer"


async def test_cancellation_ends_both_calls_before_it_goes_on():
    calls = Calls(60.0, 60.0)
    task = asyncio.ensure_future(seasoned().execute(calls))
    await asyncio.sleep(5.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert calls.ended == ["cancelled", "cancelled"]


@pytest.mark.parametrize(
    "setting",
    [{"ratio": 0.0}, {"quantile": 1.0}, {"min_samples": 0}, {"min_delay": -1.0}, {"max_tokens": 0.5}],
    ids=str,
)
def test_an_impossible_configuration_is_refused_by_name(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        HedgeConfig(**setting)


def test_its_repr_tells_its_state():
    assert repr(Hedge(idempotent=True, paid=False)) == "<Hedge 0 of 0 calls hedged, 0 won, no estimate yet>"
    assert repr(seasoned()) == "<Hedge 0 of 0 calls hedged, 0 won, late after 1.000 s>"


async def calls_race_and_are_cancelled_anywhere(simulation: Simulation) -> None:
    dice = simulation.random
    hedge = seasoned(delay=0.5)
    under_way = 0

    async def call() -> None:
        nonlocal under_way
        under_way += 1
        try:
            await asyncio.sleep(dice.choice([0, 0.2, 0.5, 0.6, 1.0]))
            if dice.random() < 0.3:
                raise Transient("down")
        except asyncio.CancelledError:
            await asyncio.sleep(dice.choice([0, 0.1]))  # One that takes its time to go.
            raise
        finally:
            under_way -= 1

    async def come() -> None:
        await asyncio.sleep(dice.choice([0, 0.1, 0.5]))
        await hedge.execute(call)

    async def come_alone() -> None:
        try:
            await come()
        finally:
            alone.append(under_way)

    alone: list[int] = []
    tasks = [asyncio.ensure_future(come()) for _ in range(6)]
    for _ in range(3):
        await asyncio.sleep(dice.choice([0, 0.1, 0.5, 0.6]))
        dice.choice(tasks).cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        assert task.cancelled() or isinstance(task.exception(), Transient | None)
    assert under_way == 0
    last = asyncio.ensure_future(come_alone())
    await asyncio.sleep(dice.choice([0, 0.5, 0.6, 1.0, 1.1]))
    last.cancel()
    await asyncio.wait([last])
    assert last.cancelled() or isinstance(last.exception(), Transient | None)
    assert alone in ([0], [])


def test_wherever_a_caller_is_cancelled_no_call_is_left_behind():
    assert explore(calls_race_and_are_cancelled_anywhere, seeds=range(repeated(400))).runs == repeated(400)
