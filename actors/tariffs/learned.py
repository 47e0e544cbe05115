"""What the calls before have shown of the next: how far estimates were off, by the kind of body. Pure values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actors.money import ZERO, Micros, micros_of
from actors.tariffs.estimate import MAX_COUNT, OUTPUT_GUESS

if TYPE_CHECKING:
    from actors.tariffs.demand import Demand
    from actors.tariffs.usage import Usage

SLOWEST = 0.05
"""The least weight of a new call in the averages: they forget half of what was before the last 14 calls."""
MAX_KINDS = 200
"""The kinds of bodies that one model is known by; what comes beyond them is learned as one kind."""
OTHER = "other"
BLOCK = 300
"""Calls whose dearest ones are remembered together; the block before counts too."""
ENOUGH = 200
"""Calls after which their dearest bounds the next: of calls that are alike, one in 200 is above all before it."""
MARGIN = 1.02


class KindOfCall(msgspec.Struct, frozen=True, gc=False):
    """What calls of one kind have shown: averages that forget, and the dearest of the latest.

    `input_ratio` is how many tokens of input came to one estimated, `output` how many an answer has. `dearest` is the
    highest cost so far, as a multiple of its estimate, in this block of calls and the one `before` it.
    """

    calls: int = 0
    input_ratio: float = 1.0
    output: float = 0.0
    dearest: float = 0.0
    before: float = 0.0

    def refined(self, demand: Demand) -> Demand:
        """Return a demand whose estimates are corrected by what is known."""
        estimate = demand.input_estimate
        if self.calls:
            estimate = min(round(estimate * self.input_ratio), MAX_COUNT)
        output = demand.output_estimate or OUTPUT_GUESS * demand.answers
        if self.calls and not demand.output_estimate:
            output = round(self.output * demand.answers)
        if demand.output_bound is not None:
            output = min(output, demand.output_bound)
        return msgspec.structs.replace(
            demand, input_estimate=min(estimate, demand.input_bound), output_estimate=min(output, MAX_COUNT)
        )

    def after(self, demand: Demand, usage: Usage, *, dearness: float) -> KindOfCall:
        """Return what is known after a call: its first demand, its usage, and its cost by that estimated."""
        weight = max(1 / (self.calls + 1), SLOWEST)
        ratio = usage.all_input / max(demand.input_estimate, 1)
        output = usage.all_output / demand.answers
        calls = self.calls + 1
        is_new_block = calls % BLOCK == 0
        dearest = max(self.dearest, dearness)
        return KindOfCall(
            calls=calls,
            input_ratio=self.input_ratio + weight * (ratio - self.input_ratio),
            output=self.output + weight * (output - self.output),
            dearest=0.0 if is_new_block else dearest,
            before=dearest if is_new_block else self.before,
        )

    def upper(self, estimate: Micros) -> Micros | None:
        """Return what a call hardly ever costs more than; None while too few calls are known."""
        if self.calls < ENOUGH:
            return None
        return micros_of(int(int(estimate) * max(self.dearest, self.before) * MARGIN) + 1)


NEW = KindOfCall()


class CallHistory:
    """The kinds of calls to one model, as its provider's target knows them."""

    __slots__ = ("_kinds", "learned")

    def __init__(self) -> None:
        self._kinds: dict[str, KindOfCall] = {}
        self.learned = 0
        """How many calls it knows of."""

    def of(self, demand: Demand) -> KindOfCall:
        """Return what is known of calls like this one."""
        return self._kinds.get(self._name(demand), NEW)

    def learn(self, demand: Demand, usage: Usage, *, cost: Micros, estimated: Micros) -> None:
        """Take note of what a call used: `demand` as it was first made, and the estimate of its cost."""
        self.learned += 1
        dearness = int(cost) / max(int(estimated), 1) if estimated > ZERO else 0.0
        self._kinds[self._name(demand)] = self.of(demand).after(demand, usage, dearness=dearness)

    def _name(self, demand: Demand) -> str:
        is_known = demand.kind in self._kinds or len(self._kinds) < MAX_KINDS
        return demand.kind if is_known else OTHER

    def __repr__(self) -> str:
        return f"<CallHistory of {len(self._kinds)} kinds>"
