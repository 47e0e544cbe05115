import asyncio

import pytest

from actors.errors.families import BulkheadFull, RateLimited, Throttled, Transient
from actors.policies.bulkhead import Bulkhead
from actors.policies.limiter import Limiter
from runtime import current_deadline
from runtime.simulation import Simulation, explore
from tests.proofs import repeated


async def work(seconds=1.0):
    await asyncio.sleep(seconds)
    return "done"


def now():
    return asyncio.get_running_loop().time()


async def test_no_more_run_at_once_than_there_are_slots():
    bulkhead = Bulkhead("b", 3)
    most = 0

    async def call():
        nonlocal most
        most = max(most, bulkhead.under_way)
        await asyncio.sleep(1.0)

    await asyncio.gather(*(bulkhead.execute(call) for _ in range(10)))
    assert (most, now(), bulkhead.under_way) == (3, 4.0, 0)


async def test_the_first_caller_is_served_first_and_none_overtakes():
    bulkhead, served = Bulkhead("b", 1), []

    async def come(number):
        async with bulkhead.slot():
            served.append(number)
            await asyncio.sleep(0.1)

    await asyncio.gather(*(come(number) for number in range(50)))
    assert served == list(range(50))


async def test_a_full_queue_refuses_at_once():
    bulkhead = Bulkhead("b", 1, max_waiting=1)
    first, second = asyncio.ensure_future(bulkhead.execute(work)), asyncio.ensure_future(bulkhead.execute(work))
    await asyncio.sleep(0)
    with pytest.raises(BulkheadFull) as caught:
        await bulkhead.execute(work)
    assert now() == 0.0
    assert caught.value.max_concurrency == 1
    assert await asyncio.gather(first, second) == ["done", "done"]


async def test_a_wait_ends_at_its_timeout_and_takes_no_slot():
    bulkhead = Bulkhead("b", 1)
    async with bulkhead.slot():
        with pytest.raises(BulkheadFull):
            await bulkhead.execute(work, timeout=2.0)
        assert now() == 2.0
        with pytest.raises(BulkheadFull):
            await bulkhead.execute(work, timeout=0)
        assert now() == 2.0
    assert list(bulkhead.broken_invariants()) == []


async def test_a_wait_ends_at_the_deadline_of_the_request_being_served():
    bulkhead = Bulkhead("b", 1)
    async with bulkhead.slot():
        token = current_deadline.set(3.0)
        with pytest.raises(BulkheadFull):
            await bulkhead.execute(work, timeout=10.0)
        assert now() == 3.0
        current_deadline.reset(token)


async def test_from_a_full_queue_callers_whose_deadline_has_passed_make_room_first():
    bulkhead = Bulkhead("b", 1, max_waiting=2)
    loop = asyncio.get_running_loop()
    dropped = []

    async def come(number, patience):
        try:
            await bulkhead.execute(work, timeout=patience)
        except BulkheadFull:
            dropped.append(number)

    async with bulkhead.slot():
        tasks = [asyncio.ensure_future(come(1, 1.0)), asyncio.ensure_future(come(2, 50.0))]
        await asyncio.sleep(0)
        # The loop was busy for two seconds, and no timer has had its turn.
        bulkhead._waiting._earliest_deadline = 1.0
        assert bulkhead._waiting.has_room(2.0)
        tasks.append(asyncio.ensure_future(come(3, 50.0)))
        await asyncio.sleep(0)
        assert (dropped, bulkhead.waiting, loop.time()) == ([1], 2, 0.0)
    await asyncio.gather(*tasks)
    assert dropped == [1]


async def test_a_free_slot_takes_no_timer_and_no_future(monkeypatch):
    bulkhead = Bulkhead("b", 1)
    loop = asyncio.get_running_loop()

    def fail(*_args, **_kwargs):
        raise AssertionError

    async def call():
        return "done"

    for name in ("call_at", "call_later", "call_soon", "create_future", "create_task"):
        monkeypatch.setattr(loop, name, fail)
    answer = await bulkhead.execute(call, timeout=5.0)
    monkeypatch.undo()
    assert answer == "done"


async def test_an_error_gives_the_slot_back():
    bulkhead = Bulkhead("b", 1)
    with pytest.raises(ZeroDivisionError):
        async with bulkhead.slot():
            raise ZeroDivisionError
    assert bulkhead.under_way == 0


async def test_a_caller_cancelled_at_the_moment_it_is_served_passes_its_slot_on():
    bulkhead = Bulkhead("b", 1)
    slot = bulkhead.slot()
    await slot.__aenter__()
    second, third = (asyncio.ensure_future(bulkhead.execute(work)) for _ in range(2))
    await asyncio.sleep(0)
    await slot.__aexit__(None, None, None)
    second.cancel()
    assert await third == "done"
    assert second.cancelled()
    assert list(bulkhead.broken_invariants()) == []


async def test_an_adaptive_one_shrinks_for_a_provider_that_its_load_makes_slow_and_grows_again():
    bulkhead = Bulkhead("b", 8, adaptive=True)
    by_load = 0.0

    async def caller():
        while now() < 200.0:
            await bulkhead.execute(lambda: work(1.0 + by_load * bulkhead.under_way))

    callers = [asyncio.ensure_future(caller()) for _ in range(20)]
    await asyncio.sleep(50.0)
    assert bulkhead.allowed == 8
    by_load = 1.0
    await asyncio.sleep(70.0)
    assert bulkhead.allowed <= 3
    by_load = 0.0
    await asyncio.gather(*callers)
    assert bulkhead.allowed == 8
    assert list(bulkhead.broken_invariants()) == []


@pytest.mark.parametrize(
    ("error", "counts"),
    [(TimeoutError(), True), (Throttled("429"), True), (Transient("503"), False), (asyncio.CancelledError(), False)],
)
async def test_only_timeouts_and_throttling_shrink_an_adaptive_one(error, counts):
    bulkhead = Bulkhead("b", 8, adaptive=True)

    async def fail():
        raise error

    for _ in range(5):
        with pytest.raises(type(error)):
            await bulkhead.execute(fail)
    assert (bulkhead.allowed < 8) == counts


async def test_during_a_slow_start_only_a_part_of_the_slots_is_open():
    bulkhead, share = Bulkhead("b", 10), 0.1
    bulkhead.follow_slow_start(lambda: share)
    assert bulkhead.allowed == 1
    calls = [asyncio.ensure_future(bulkhead.execute(work)) for _ in range(10)]
    await asyncio.sleep(0)
    assert bulkhead.under_way == 1
    share = 0.5
    await asyncio.sleep(1.5)
    assert bulkhead.under_way == 5
    await asyncio.gather(*calls)
    assert bulkhead.under_way == 0


@pytest.mark.parametrize(
    "make", [lambda: Bulkhead("b", 0), lambda: Bulkhead("b", 1, -1), lambda: Bulkhead("b", 1).slot(-1.0)]
)
def test_what_is_impossible_is_refused(make):
    with pytest.raises(ValueError, match=r"must be >="):
        make()


def test_its_repr_tells_its_state():
    assert repr(Bulkhead("b", 5)) == "<Bulkhead 'b' 0 of 5 under way, 0 waiting>"


async def callers_are_cancelled_anywhere(simulation: Simulation) -> None:
    dice = simulation.random
    bulkhead = Bulkhead("b", dice.randint(1, 3), dice.randint(0, 6), adaptive=dice.random() < 0.5)
    limiter = Limiter("q", rate=dice.choice([1.0, 5.0]), burst=dice.randint(1, 3), max_waiting=dice.randint(0, 6))
    running = granted = 0

    async def come() -> None:
        nonlocal running, granted
        await asyncio.sleep(dice.uniform(0, 3))
        try:
            if dice.random() < 0.5:
                grant = await limiter.acquire(dice.choice([None, 0, 1.0]))
                granted += 1
                if dice.random() < 0.3:
                    limiter.refund(grant)
                    granted -= 1
            async with bulkhead.slot(dice.choice([None, 0, 0.5])):
                running += 1
                try:
                    assert running <= bulkhead.max_concurrency
                    await asyncio.sleep(dice.choice([0, 0, 0.1, 1.0]))
                finally:
                    running -= 1
        except (BulkheadFull, RateLimited) as refusal:
            simulation.note(str(refusal))

    tasks = [asyncio.ensure_future(come()) for _ in range(20)]
    for _ in range(10):
        await asyncio.sleep(dice.choice([0, 0.1, 0.5]))
        dice.choice(tasks).cancel()
    await asyncio.wait(tasks)
    assert [task for task in tasks if not task.cancelled() and task.exception() is not None] == []
    assert running == 0
    assert [*bulkhead.broken_invariants(), *limiter.broken_invariants()] == []
    assert granted <= limiter.bucket.burst + limiter.bucket.rate * simulation.now() + 1e-6
    # The next caller is served at once: nothing was lost.
    for _ in range(bulkhead.allowed):
        await bulkhead.acquire(0.0)


def test_wherever_a_caller_is_cancelled_its_slot_and_its_token_come_back():
    assert explore(callers_are_cancelled_anywhere, seeds=range(repeated(400))).runs == repeated(400)
