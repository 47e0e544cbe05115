"""Everything about one provider that an admission looks at and may change. Pure."""

from __future__ import annotations

import math

import msgspec

from actors.limits.attempt_timeout import AttemptTimeout
from actors.limits.concurrency import ConcurrencyLimit
from actors.limits.learned import LearnedLimit
from actors.limits.quota import Quota  # noqa: TC001 - msgspec resolves the annotations below.
from actors.policies.breaker.states import BreakerState, Closed
from actors.policies.retry import RetryBudget
from actors.supervisor.targets.dear_answers import DearAnswers  # noqa: TC001 - msgspec resolves this annotation.
from actors.supervisor.targets.hanging import NONE_HANG, HangingCalls
from actors.supervisor.targets.leaving import Leave  # noqa: TC001 - as above.
from actors.supervisor.targets.refusals import NO_REFUSALS, Refusals, StandingRefusal


class TargetState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Everything about one provider that an admission looks at and may change."""

    breaker: BreakerState = Closed()
    quota: Quota | None = None
    """The stated limits, of requests, tokens or cost; None if there are none."""
    learned: LearnedLimit = LearnedLimit()
    """What its 429s and headers tell of limits that were not stated."""
    limit: ConcurrencyLimit = ConcurrencyLimit(max_concurrency=10)
    """How many calls it bears at the same time, learned from how long they take."""
    answers: AttemptTimeout = AttemptTimeout()
    """How long its answers take, and so how long to wait for one."""
    retries: RetryBudget = RetryBudget()
    refusals: Refusals = NO_REFUSALS
    """What it refuses, and is left alone for."""
    dear: DearAnswers | None = None
    """What it has charged beyond the price that it lists."""
    under_way: int = 0
    stragglers: int = 0
    """The calls under way that later ones have overtaken, as of an admission."""
    quiet_since: float = math.inf
    """Since when no call under way has been answered, in loop time."""
    hanging: HangingCalls = NONE_HANG
    """How often single calls hang at it, though others are answered."""
    probe_cut: float = 0.0
    """The seconds that the last probe waited in vain; 0.0 if a call has been answered since."""

    def left_for(self) -> list[StandingRefusal | DearAnswers]:
        """Return all that the provider is left alone for by more than the requests with one input."""
        left: list[StandingRefusal | DearAnswers] = [one for one in self.refusals.all if one.is_for_others]
        if self.dear is not None and self.dear.leave is not None:
            left.append(self.dear)
        return left

    def leaves(self) -> list[Leave]:
        """Return every wait for which the provider is left alone."""
        dear = None if self.dear is None else self.dear.leave
        return [*(one.leave for one in self.refusals.all), *(() if dear is None else (dear,))]

    def is_stalled(self, now: float) -> bool:
        """Tell whether calls are under way and none has come back for as long as an answer should take.

        With few calls that is common and means little; but then few more are all that is asked for.
        """
        expected = self.limit.expected_latency
        return self.under_way > 0 < expected and now - self.quiet_since > expected
