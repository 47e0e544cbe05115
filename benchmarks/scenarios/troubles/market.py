"""The market that most troubles strike: one provider that every request prefers, and two that could do as well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.money import Micros
from benchmarks.scenarios.troubles.outcome import Span
from benchmarks.scenarios.troubles.provider import TroubledProvider

if TYPE_CHECKING:
    from runtime.simulation import Simulation

NAMES = ("alder", "birch", "cedar")
REPUTATIONS = (90.0, 70.0, 50.0)


def three(simulation: Simulation, *, price: int = 1_000, **favourite: Any) -> list[TroubledProvider]:
    """Return three providers, the preferred one first: it is the best, the cheapest and the fastest.

    `price` is what it charges in micro-units, the others up to twice as much; `favourite` are further terms of it.
    """
    dice = simulation.random
    providers: list[TroubledProvider] = []
    for number, (name, reputation) in enumerate(zip(NAMES, REPUTATIONS, strict=True)):
        least = dice.uniform(0.05, 0.15)
        terms: dict[str, Any] = {
            "price": Micros(price + price * number // 2),
            "latency": (least, least + dice.uniform(0.0, 0.3)),
            "reputation": reputation,
            "response_time": 0.2 + 0.1 * number,
        }
        providers.append(TroubledProvider(simulation, name, **(terms if number else terms | favourite)))
    return providers


def draw_span(simulation: Simulation, *, at: float = 15.0, least: float, most: float, settling: float = 15.0) -> Span:
    """Return a trouble of `least` to `most` seconds, which begins at about `at`."""
    begin = at + simulation.random.uniform(0, 10)
    return Span(begin, begin + simulation.random.uniform(least, most), settling)


def rate_of(simulation: Simulation, least: float, most: float) -> float:
    """Return how many customers come in a second."""
    return simulation.random.uniform(least, most)
