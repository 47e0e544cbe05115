"""What a call has used that was cut off, as far as can be told by what came of its answer. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actors.tariffs.estimate import BYTES_PER_TOKEN
from actors.tariffs.usage import Usage

if TYPE_CHECKING:
    from actors.tariffs.demand import Demand

UNSEEN_SECONDS = 2.0
"""A provider that stops goes on writing for so long after its stream was cut off, at most."""


def usage_when_cut(told: Usage | None, demand: Demand, *, written: int, seconds: float) -> Usage:
    """Return the usage of a call whose provider stops when it is cut off.

    `written` is the bytes of the answer that came, in the `seconds` since its first piece. To these comes what the
    provider wrote meanwhile, 2 seconds at the speed so far, up to the bound of the output. The input is what the
    provider told (`told`), or else the estimate. Nothing of it is exact.

    >>> from actors.tariffs.demand import Demand
    >>> demand = Demand(input_bound=100, input_estimate=30, output_bound=500)
    >>> usage = usage_when_cut(None, demand, written=400, seconds=1.0)
    >>> usage.input, usage.output
    (30, 300)
    """
    output = -(-written // BYTES_PER_TOKEN)
    if output and seconds > 0:
        output += round(UNSEEN_SECONDS * output / seconds)
    output = max(output, 0 if told is None else told.all_output)
    if demand.output_bound is not None:
        output = min(output, demand.output_bound)
    if told is None:
        return Usage(input=demand.input_estimate, output=output, is_counted=True)
    return msgspec.structs.replace(told, output=output, reasoning=0, cost=None, is_counted=True)


def usage_at_most(demand: Demand, *, max_output: int | None) -> Usage | None:
    """Return the usage of a call that is charged whole, whatever came of it; None if its output has no bound."""
    output = demand.output_bound
    if output is None:
        if max_output is None:
            return None
        output = max_output * demand.answers
    return Usage(input=demand.input_bound, output=output, is_counted=True)
