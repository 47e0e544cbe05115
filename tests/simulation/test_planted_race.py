"""The kind of mistake that a simulation is for: it is there in every run, and shows in hardly any order."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from actors import BreakerConfig, BreakerOpen, CircuitBreaker, Transient
from actors.policies.breaker.states import Open
from runtime.simulation import ScenarioFailed, Simulation, explore
from tests.proofs import repeated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CONFIG = BreakerConfig(failure_threshold=3, open_for=10.0)


class RacyBreaker(CircuitBreaker):
    """Lets others have a turn between looking at its state and taking the place of the probe."""

    async def execute(self, call: Callable[[], Awaitable[Any]]) -> Any:
        state = self._state
        if isinstance(state, Open) and asyncio.get_running_loop().time() >= state.until:
            await self.write_to_audit_log()
            self._state = state  # What it looked at, and what may be so no more.
        return await super().execute(call)

    async def write_to_audit_log(self) -> None:
        await asyncio.sleep(0)


async def callers_come_one_turn_after_the_other(simulation: Simulation, kind: type[CircuitBreaker]) -> None:
    breaker = kind("provider", CONFIG)
    probes = 0

    async def fail() -> None:
        raise Transient("down", provider="provider")

    async def probe() -> None:
        nonlocal probes
        probes += 1
        simulation.note(f"probe {probes}")
        assert probes == 1, "the half-open breaker let two probes through"
        await asyncio.sleep(1.0)

    async def come(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        with suppress(BreakerOpen):
            await breaker.execute(probe)

    for _ in range(CONFIG.failure_threshold):
        with suppress(Transient):
            await breaker.execute(fail)
    assert isinstance(breaker.state, Open)
    await asyncio.sleep(11.0)
    # Whoever comes later began later, so that in the order of asyncio the first is always through before the second.
    await asyncio.gather(*(come(turns) for turns in range(simulation.random.randint(2, 4))))
    assert probes == 1


async def one_pair_among_twenty() -> None:
    """The reader must come after the writer; twenty others run beside them, in any order."""
    written: list[int] = []

    async def idle() -> None:
        for _ in range(3):
            await asyncio.sleep(1.0)

    async def write() -> None:
        await asyncio.sleep(2.0)
        written.append(1)

    async def read() -> None:
        await asyncio.sleep(2.0)
        assert written, "read before it was written"

    others = [asyncio.create_task(idle(), name=f"other-{number}") for number in range(20)]
    writer, reader = asyncio.create_task(write(), name="writer"), asyncio.create_task(read(), name="reader")
    await asyncio.gather(*others, writer, reader)


@pytest.mark.parametrize("first", range(0, 20, 4))
def test_an_ordering_bug_is_reduced_to_its_one_pair(first: int):
    with pytest.raises(ScenarioFailed, match="task reader went before task writer at step") as caught:
        explore(one_pair_among_twenty, seeds=range(first, first + 100), processes=1)
    failed = caught.value
    assert [(one.subject, one.before) for one in failed.deviations] == [("reader", "writer")]
    assert failed.runs <= 20
    again = Simulation(failed.seed, order=failed.deviations, logs=False)
    with pytest.raises(AssertionError, match="read before"):
        again.run(one_pair_among_twenty)
    assert again.trace.digest == failed.digest


def with_breaker(kind: type[CircuitBreaker]) -> Any:
    async def scenario(simulation: Simulation) -> None:
        await callers_come_one_turn_after_the_other(simulation, kind)

    return scenario


def test_a_half_open_breaker_that_lets_two_probes_through_is_found():
    with pytest.raises(ScenarioFailed, match="the half-open breaker let two probes through") as caught:
        explore(with_breaker(RacyBreaker), seeds=range(1_000))
    again = partial(Simulation(caught.value.seed, logs=False).run, with_breaker(RacyBreaker))
    with pytest.raises(AssertionError, match="two probes"):
        again()
    assert any("probe 2" in event for event in caught.value.events)


def test_it_never_shows_in_the_order_of_production():
    assert explore(with_breaker(RacyBreaker), seeds=range(repeated(1_000)), order="fifo").runs == repeated(1_000)


@pytest.mark.slow
def test_the_breaker_that_is_shipped_survives_ten_thousand_orders():
    assert explore(with_breaker(CircuitBreaker), seeds=range(repeated(10_000))).runs == repeated(10_000)
