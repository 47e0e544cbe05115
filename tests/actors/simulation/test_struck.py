"""Faults of the simulation strike the transport of a program's own function as they strike a simulated provider."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from actors import CallFailed, FunctionTransport, Listing, OutcomeUnknown, Provider, ProviderCall, ProviderReply
from actors.errors import ConnectionFailed
from actors.money import Micros
from actors.simulation import (
    Bug,
    Hanging,
    LostReplies,
    Outage,
    PriceChange,
    SimulatedProvider,
    SlowLoris,
    ThrottleStorm,
    WrongAnswers,
    with_faults,
)
from actors.transports.reconciliation import Cancels, Finding, LooksUp, NeverRan
from runtime.simulation import InvariantBroken, Simulation

if TYPE_CHECKING:
    from actors.transports.transport import Transport
    from runtime.simulation import Fault

LIMIT = 10.0


def attempt_at(item: str) -> ProviderCall:
    return ProviderCall(
        service="s", input=item, request_id=item, idempotency_key=item, max_cost=Micros(7), timeout=LIMIT
    )


class Work:
    """What a function of the program's own has done."""

    def __init__(self) -> None:
        self.calls = 0

    async def do(self, call: ProviderCall) -> ProviderReply:
        self.calls += 1
        await asyncio.sleep(1.0)
        return ProviderReply(output=call.input.upper(), cost=Micros(7))

    def listing(self, kind: type[FunctionTransport] = FunctionTransport) -> Listing:
        return Listing(
            provider=Provider(name="search", services={"s"}, price=Micros(7)),
            transport=lambda: kind(self.do, paid=True, idempotent="no"),
        )


class LookedUp(FunctionTransport):
    async def look_up(self, call: ProviderCall, *, timeout: float) -> Finding:  # noqa: ASYNC109 - of `LooksUp`.
        return NeverRan()


def outcome_of(*faults: Fault) -> tuple[Any, float, int]:
    """Return the outcome of one call, the seconds that it took, and how often the function ran."""
    work = Work()

    async def scenario(simulation: Simulation) -> tuple[Any, float, int]:
        transport = with_faults(simulation, work.listing()).transport()
        try:
            outcome: Any = await transport.call(attempt_at("a"))
        except (CallFailed, KeyError) as error:
            outcome = error
        await transport.aclose()
        return outcome, simulation.now(), work.calls

    return Simulation(1, faults=faults).run(scenario).result


def test_what_no_fault_strikes_is_passed_on() -> None:
    assert outcome_of() == (ProviderReply(output="A", cost=Micros(7)), 1.0, 1)


@pytest.mark.parametrize(
    ("fault", "kind", "took", "ran"),
    [
        (Outage(provider="search"), ConnectionFailed, 0.0, 0),
        (Outage(provider="sea*"), ConnectionFailed, 0.0, 0),
        (Bug(provider="search"), KeyError, 0.0, 0),
        (ThrottleStorm(provider="search", retry_after=3.0), CallFailed, 0.0, 0),
        (Hanging(provider="search"), OutcomeUnknown, LIMIT, 0),
        (SlowLoris(provider="search", latency=60.0), OutcomeUnknown, LIMIT, 1),
        (LostReplies(provider="search"), OutcomeUnknown, 1.0, 1),
    ],
)
def test_a_fault_strikes_the_function(fault: Fault, kind: type[Exception], took: float, ran: int) -> None:
    outcome, seconds, calls = outcome_of(fault)
    assert isinstance(outcome, kind)
    assert (seconds, calls) == (pytest.approx(took), ran)


@pytest.mark.parametrize(
    ("fault", "output", "cost", "took"),
    [
        (SlowLoris(provider="search", latency=4.0), "A", 7, 5.0),
        (WrongAnswers(provider="search", output="no"), "no", 7, 1.0),
        (PriceChange(provider="search", price=Micros(9)), "A", 9, 1.0),
    ],
)
def test_a_fault_changes_the_answer(fault: Fault, output: str, cost: int, took: float) -> None:
    reply, seconds, calls = outcome_of(fault)
    assert (reply.output, reply.cost, seconds, calls) == (output, cost, pytest.approx(took), 1)


def test_a_misspelt_fault_names_the_listing() -> None:
    with pytest.raises(InvariantBroken, match="did you mean 'search'"):
        outcome_of(Outage(provider="serach"))


def test_health_checks_are_struck_too() -> None:
    async def scenario(simulation: Simulation) -> None:
        transport = with_faults(simulation, Work().listing()).transport()
        await transport.check(timeout=1.0)
        simulation.inject(Outage(provider="search"))
        with pytest.raises(ConnectionFailed):
            await transport.check(timeout=1.0)

    Simulation(1).run(scenario)


def test_a_look_up_has_to_reach_the_provider() -> None:
    async def scenario(simulation: Simulation) -> None:
        work = Work()
        plain: Transport = with_faults(simulation, work.listing()).transport()
        assert not isinstance(plain, LooksUp)
        assert not isinstance(plain, Cancels)
        transport: Any = with_faults(simulation, work.listing(LookedUp)).transport()
        assert isinstance(transport, LooksUp)
        assert await transport.look_up(attempt_at("a"), timeout=1.0) == NeverRan()
        simulation.inject(Outage(provider="search"))
        with pytest.raises(ConnectionFailed):
            await transport.look_up(attempt_at("a"), timeout=1.0)

    Simulation(1).run(scenario)


def test_a_simulated_provider_is_not_struck_twice() -> None:
    async def scenario(simulation: Simulation) -> None:
        provider = SimulatedProvider(simulation, "alder", services={"s"})
        with pytest.raises(ValueError, match="'alder' already"):
            with_faults(simulation, provider.listing())

    Simulation(1).run(scenario)
