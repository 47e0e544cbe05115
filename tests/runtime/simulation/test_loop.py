from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runtime.simulation import Deadlock, Livelock, Simulation, SimulationError, VirtualTimeLoop

if TYPE_CHECKING:
    import random


def run(scenario: Any, dice: random.Random | None = None) -> Any:
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(dice)) as runner:
        return runner.run(scenario())


def test_hours_of_waiting_take_no_time_and_the_clock_shows_them() -> None:
    async def scenario() -> list[float]:
        times = []
        for seconds in (3600.0, 0.25, 1e6):
            await asyncio.sleep(seconds)
            times.append(asyncio.get_running_loop().time())
        return times

    assert run(scenario) == [3600.0, 3600.25, 1003600.25]


def test_time_stands_still_while_there_is_work() -> None:
    async def scenario() -> float:
        asyncio.get_running_loop().call_later(1, lambda: None)
        for _ in range(1000):
            await asyncio.sleep(0)
        return asyncio.get_running_loop().time()

    assert run(scenario) == 0.0


async def order_of_births() -> list[Any]:
    """Take down the order of tasks and callbacks that become ready at the same time."""
    seen: list[Any] = []

    async def step(number: int) -> None:
        seen.append(number)
        await asyncio.sleep(0)
        seen.append(number)

    loop = asyncio.get_running_loop()
    for number in range(10):
        loop.call_soon(seen.append, f"callback {number}")
        asyncio.ensure_future(step(number))
    for _ in range(4):
        await asyncio.sleep(0)
    return seen


def test_the_seed_permutes_tasks_and_leaves_callbacks_in_their_order() -> None:
    orders = [Simulation(seed).run(order_of_births).result for seed in range(20)]
    steps = [[one for one in order if isinstance(one, int)] for order in orders]
    callbacks = [one for one in orders[0] if isinstance(one, str)]
    assert callbacks == [f"callback {number}" for number in range(10)]
    assert all([one for one in order if isinstance(one, str)] == callbacks for order in orders)
    assert len({tuple(order) for order in steps}) == 20
    assert all(sorted(order[:10]) == list(range(10)) for order in steps)


def test_in_fifo_order_everything_goes_as_in_asyncio() -> None:
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        expected = runner.run(order_of_births())
    assert Simulation(7, order="fifo").run(order_of_births).result == expected


def test_timers_that_are_due_at_the_same_time_fire_in_the_order_in_which_they_were_set() -> None:
    async def scenario() -> list[int]:
        seen: list[int] = []
        loop = asyncio.get_running_loop()
        for number in range(200):
            timer = loop.call_at(5.0, seen.append, number)
            if number % 3 == 0:
                timer.cancel()
        await asyncio.sleep(9)
        return seen

    assert run(scenario) == [number for number in range(200) if number % 3]


def test_many_cancelled_timers_are_forgotten() -> None:
    async def scenario() -> int:
        loop: Any = asyncio.get_running_loop()
        for _ in range(10_000):
            loop.call_later(3600, print).cancel()
        return len(loop._scheduled)

    assert run(scenario) < 300


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


async def wait_in_a_call() -> None:
    await wait_for_ever()


def test_a_deadlock_names_the_stuck_tasks_and_their_lines_the_innermost_first() -> None:
    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait_in_a_call(), name="stuck one")

    with pytest.raises(Deadlock) as caught:
        Simulation().run(scenario)
    line = next(line for line in str(caught.value).splitlines() if "stuck one" in line)
    assert "locks.py" in line
    begin = wait_for_ever.__code__.co_firstlineno + 1
    inner, outer = f"{__file__}:{begin} in wait_for_ever", f"{__file__}:{begin + 4} in wait_in_a_call"
    assert line.index(inner) < line.index(outer)
    assert "scenario waits at" in str(caught.value)


def test_a_deadlock_inside_of_an_async_generator_names_its_line() -> None:
    async def generate() -> Any:
        await asyncio.Event().wait()
        yield 1

    async def scenario() -> None:
        async for _ in generate():
            pass

    with pytest.raises(Deadlock, match=f"{Path(__file__).name}:{generate.__code__.co_firstlineno + 1} in .*generate"):
        Simulation().run(scenario)


@pytest.mark.parametrize("sleep", [asyncio.sleep, anyio.sleep])
def test_a_sleep_without_end_is_a_deadlock(sleep: Any) -> None:
    async def scenario() -> None:
        await sleep(float("inf"))

    with pytest.raises(Deadlock):
        Simulation().run(scenario)


async def spin(seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)


def test_a_livelock_at_one_time_is_reported_with_who_is_busy() -> None:
    simulation = Simulation(max_steps=20_000_000)

    async def scenario() -> None:
        simulation.loop.max_steps_at_one_time = 5_000
        await asyncio.sleep(3)
        await asyncio.create_task(spin(0), name="hamster")

    with pytest.raises(Livelock, match=r"5,000 steps at one and the same time \(now 3 s\).*busy are hamster \(\d+ of"):
        simulation.run(scenario)
    assert simulation.now() == 3.0


def test_a_livelock_with_time_going_on_is_reported_with_who_is_busy() -> None:
    async def scenario() -> None:
        await asyncio.create_task(spin(1), name="hamster")

    with pytest.raises(Livelock, match=r"5,000 steps in the run .*busy are .*hamster"):
        Simulation(max_steps=5_000).run(scenario)


@pytest.mark.parametrize("seconds", [0, 1])
def test_who_spins_and_cannot_be_cancelled_does_not_keep_the_run_from_ending(seconds: float) -> None:
    async def deaf() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(seconds)

    async def scenario() -> None:
        simulation.loop.max_steps_at_one_time = 5_000
        await asyncio.create_task(deaf(), name="deaf")

    simulation = Simulation(max_steps=4_000)
    with pytest.raises(Livelock, match="deaf"):
        simulation.run(scenario)
    assert Simulation().run(order_of_births).result


def test_after_a_deadlock_cleanup_runs_and_so_do_further_simulations() -> None:
    seen = []

    async def scenario() -> None:
        try:
            await wait_for_ever()
        finally:
            await asyncio.sleep(1)
            seen.append("cleaned up")

    for _ in range(2):
        with pytest.raises(Deadlock):
            Simulation().run(scenario)
    assert seen == ["cleaned up"] * 2
    assert Simulation().run(order_of_births).result


def test_the_loop_leaves_no_file_and_no_warning() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for seed in range(3):
            Simulation(seed).run(order_of_births)
            with pytest.raises(Deadlock):
                Simulation(seed).run(wait_for_ever)
        gc.collect()
    assert [str(one.message) for one in caught] == []
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.real_time
@pytest.mark.slow
def test_a_digest_is_the_same_in_every_process() -> None:
    program = str(Path(__file__).with_name("digest_program.py"))
    outputs = [
        subprocess.run(
            [sys.executable, program, "3"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert len(set(outputs[0].splitlines())) == 3


def test_a_digest_is_the_same_whatever_ran_before_in_the_process() -> None:
    async def scenario(simulation: Simulation) -> None:
        tasks = [asyncio.create_task(asyncio.sleep(1)) for _ in range(40)]
        simulation.note(" ".join(task.get_name() for task in asyncio.all_tasks()))
        await asyncio.wait(tasks)

    first = Simulation(3).run(scenario).digest
    other = VirtualTimeLoop()
    left = [other.create_task(asyncio.sleep(1)) for _ in range(100)]
    assert Simulation(3).run(scenario).digest == first
    other.run_until_complete(asyncio.wait(left))
    other.close()


def test_async_generators_that_were_left_are_closed_in_the_order_in_which_they_began() -> None:
    closed: list[int] = []

    async def generate(number: int) -> Any:
        try:
            yield number
        finally:
            closed.append(number)

    generators = [generate(number) for number in range(50)]

    async def scenario() -> None:
        for generator in generators:
            await anext(generator)

    Simulation(order="fifo").run(scenario)
    assert closed == list(range(50))


def test_a_program_with_a_task_factory_of_its_own_runs() -> None:
    async def scenario() -> list[str]:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, coroutine, **options: asyncio.Task(coroutine, loop=loop, **options))
        task = asyncio.create_task(asyncio.sleep(1), name="made by a factory")
        names = [one.get_name() for one in asyncio.all_tasks()]
        await task
        return sorted(names)

    assert Simulation().run(scenario).result == ["made by a factory", "scenario"]


async def test_a_simulation_inside_of_a_running_loop_is_refused() -> None:
    async def scenario() -> None:
        pass

    with pytest.raises(SimulationError, match="await Simulation"):
        Simulation().run(scenario)
