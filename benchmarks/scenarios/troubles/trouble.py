"""One trouble as the tests and the benchmark know it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from benchmarks.scenarios.troubles.contenders import Contender
    from benchmarks.scenarios.troubles.outcome import Outcome
    from runtime.simulation import Simulation

    Scenario = Callable[[Simulation, Contender], Awaitable[Outcome]]

MUST: Mapping[str, str] = {
    "success": ">= 0.999",
    "amplification": "<= 1.05",
    "calls_per_reopen": "<= 1",
    "time_to_return": "<= 40",
    "paid_twice": "<= 0",
}
"""What ours must reach in every seed, where a provider can serve and the figure means something."""


def without(*names: str) -> Mapping[str, str]:
    """Return what ours must reach, but for figures that mean nothing for a trouble."""
    return {name: bound for name, bound in MUST.items() if name not in names}


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """A trouble: what the seed's page promises for it, how it is made, and what ours must reach in it."""

    promise: str
    scenario: Scenario
    must: Mapping[str, str] = msgspec.field(default_factory=lambda: dict(MUST))
