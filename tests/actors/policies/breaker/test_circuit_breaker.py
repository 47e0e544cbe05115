import asyncio
import random
from contextlib import suppress

import pytest

from actors.errors.families import BreakerOpen, Permanent, QuotaExhausted, Throttled, Transient
from actors.policies.breaker.circuit_breaker import CircuitBreaker
from actors.policies.breaker.config import BreakerConfig
from actors.policies.breaker.states import Closed, HalfOpen, Open
from runtime.simulation import Simulation, explore
from tests.proofs import repeated


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock) -> CircuitBreaker:
    return CircuitBreaker("acme", BreakerConfig(open_for=30.0, jitter=0.0), clock=clock, rng=random.Random(1))


async def answer() -> str:
    return "answer"


def failing(error: BaseException):
    async def call() -> None:
        raise error

    return call


async def trip(breaker: CircuitBreaker) -> None:
    for _ in range(5):
        with pytest.raises(RuntimeError):
            await breaker.execute(failing(RuntimeError("down")))
    assert isinstance(breaker.state, Open)


async def test_an_answer_comes_back_and_an_error_is_raised(breaker):
    assert await breaker.execute(answer) == "answer"
    error = Transient("down")
    with pytest.raises(Transient) as caught:
        await breaker.execute(failing(error))
    assert caught.value is error


async def test_an_open_breaker_refuses_without_calling(breaker, clock):
    await trip(breaker)
    clock.now = 10.0
    with pytest.raises(BreakerOpen) as caught:
        await breaker.execute(failing(AssertionError("it was called")))
    assert (caught.value.provider, caught.value.retry_after) == ("acme", 20.0)


async def test_of_a_thousand_concurrent_callers_one_is_the_probe(breaker, clock):
    await trip(breaker)
    clock.now = 30.0
    probed = 0
    finish = asyncio.Event()

    async def probe() -> None:
        nonlocal probed
        probed += 1
        await finish.wait()

    async def knock() -> None:
        try:
            await breaker.execute(probe)
        except BreakerOpen:
            finish.set()

    await asyncio.gather(*(knock() for _ in range(1000)))
    assert probed == 1
    assert isinstance(breaker.state, Closed)


async def test_a_cancelled_probe_leaves_the_breaker_ready_to_probe(breaker, clock):
    await trip(breaker)
    clock.now = 30.0
    began = asyncio.Event()

    async def hang() -> None:
        began.set()
        await asyncio.Event().wait()

    probe = asyncio.ensure_future(breaker.execute(hang))
    await began.wait()
    assert isinstance(breaker.state, HalfOpen)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    assert await breaker.execute(answer) == "answer"
    assert isinstance(breaker.state, Closed)


@pytest.mark.parametrize(
    "error",
    [
        Permanent("400"),
        Throttled("429"),
        QuotaExhausted("402"),
        BreakerOpen("inner", retry_after=1.0),
        ValueError("input"),
        asyncio.CancelledError(),
    ],
    ids=repr,
)
async def test_what_the_provider_is_not_to_blame_for_never_moves_a_closed_breaker(breaker, error):
    before = breaker.state
    for _ in range(100):
        with pytest.raises(type(error)):
            await breaker.execute(failing(error))
    assert breaker.state == before


async def test_a_probe_that_fails_by_the_callers_mistake_proves_nothing(breaker, clock):
    await trip(breaker)
    clock.now = 30.0
    with pytest.raises(Permanent):
        await breaker.execute(failing(Permanent("400")))
    assert isinstance(breaker.state, Open)
    assert await breaker.execute(answer) == "answer"


async def test_a_broken_judge_of_failures_does_not_hold_the_probe_for_ever(clock):
    def judge(error: Exception) -> bool:
        raise LookupError(str(error))

    breaker = CircuitBreaker("acme", clock=clock, counts_as_failure=judge)
    breaker._state = Open(1, until=0.0)
    with pytest.raises(LookupError):
        await breaker.execute(failing(RuntimeError("down")))
    assert isinstance(breaker.state, Open)


async def test_a_breaker_can_be_isolated_and_released_by_hand(breaker):
    breaker.isolate()
    with pytest.raises(BreakerOpen, match="release it by hand"):
        await breaker.execute(answer)
    breaker.release()
    assert await breaker.execute(answer) == "answer"


async def test_without_a_clock_it_reads_the_time_of_the_running_loop():
    breaker = CircuitBreaker("acme", BreakerConfig(failure_threshold=1, open_for=30.0, jitter=0.0))
    before = asyncio.get_running_loop().time()
    with pytest.raises(RuntimeError):
        await breaker.execute(failing(RuntimeError("down")))
    assert isinstance(breaker.state, Open)
    assert before + 30.0 <= breaker.state.until <= asyncio.get_running_loop().time() + 30.0


async def test_it_gives_a_provider_that_came_back_a_slow_start(breaker, clock):
    assert breaker.share() == 1.0
    await trip(breaker)
    clock.now = 30.0
    await breaker.execute(answer)
    assert breaker.share() == 0.1
    clock.now = 60.0
    assert breaker.share() == 1.0


async def test_a_permit_can_be_taken_and_settled_by_hand(breaker, clock):
    for _ in range(5):
        breaker.settle(breaker.admit(), failed=True)
    with pytest.raises(BreakerOpen):
        breaker.admit()
    with pytest.raises(BreakerOpen):
        breaker.raise_if_open()
    clock.now = 30.0
    breaker.raise_if_open()
    assert isinstance(breaker.state, Open)
    permit = breaker.admit(now=31.0)
    assert permit.probe
    breaker.settle(permit, failed=None, now=32.0)
    assert breaker.state == Open(3, until=32.0, earlier=2)


async def callers_are_cancelled_anywhere(simulation: Simulation) -> None:
    dice = simulation.random
    config = BreakerConfig(failure_threshold=2, min_calls=4, open_for=0.5, slow_start=1.0, slow_call=0.8)
    breaker = CircuitBreaker("acme", config, rng=random.Random(simulation.seed))
    probes = 0

    async def call() -> None:
        nonlocal probes
        is_probe = isinstance(breaker.state, HalfOpen)
        probes += is_probe
        assert probes <= 1, "two probes at once"
        try:
            await asyncio.sleep(dice.choice([0, 0, 0.1, 0.5, 1.0]))
            if dice.random() < 0.5:
                raise Transient("down")
        finally:
            probes -= is_probe

    async def come() -> None:
        for _ in range(3):
            await asyncio.sleep(dice.choice([0, 0.1, 0.5, 1.0]))
            with suppress(BreakerOpen, Transient):
                await breaker.execute(call)

    tasks = [asyncio.ensure_future(come()) for _ in range(10)]
    for _ in range(8):
        await asyncio.sleep(dice.choice([0, 0.1, 0.5]))
        dice.choice(tasks).cancel()
    await asyncio.wait(tasks)
    assert [task for task in tasks if not task.cancelled() and task.exception() is not None] == []
    assert not isinstance(breaker.state, HalfOpen), "the probe was not given back"
    await asyncio.sleep(config.longest_wait)
    assert await breaker.execute(answer) == "answer"


def test_wherever_a_caller_is_cancelled_the_probe_comes_back():
    assert explore(callers_are_cancelled_anywhere, seeds=range(repeated(400))).runs == repeated(400)


async def test_its_repr_tells_its_state(breaker, clock):
    assert repr(breaker) == "<CircuitBreaker 'acme' closed, 0 of 5 failures in a row>"
    await trip(breaker)
    assert repr(breaker) == "<CircuitBreaker 'acme' open until 30.000, 0 probes failed>"
    clock.now = 30.0

    async def look() -> str:
        return repr(breaker)

    assert await breaker.execute(look) == "<CircuitBreaker 'acme' half-open, one probe until 60.000>"
    breaker.isolate()
    assert repr(breaker) == "<CircuitBreaker 'acme' isolated by hand>"
