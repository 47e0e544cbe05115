"""Limits the retries of one target: an immutable budget, and a holder that calls share."""

from __future__ import annotations

import math

import msgspec

from actors.validation import check_config


class RetryBudget(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The retries left to one target, so that retries never multiply the load of an outage.

    Each first attempt deposits `ratio` tokens, and `min_per_second` tokens come with time, so that a quiet
    client may retry too; a retry withdraws one whole token. `max_tokens` bounds a burst of retries. With the
    defaults a target gets at most 10 % extra load, plus one retry per second. An immutable value; `now` is
    in seconds of any one clock, and a clock that steps back adds nothing.

    Source: the retry budgets of Finagle (`RetryBudget`, a leaky token bucket) and the SRE book, chapter 21.
    """

    ratio: float = 0.1
    min_per_second: float = 1.0
    max_tokens: float = 100.0
    tokens: float = 10.0
    updated: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ValueError(f"ratio must be from 0 to 1 retry per first attempt, got {self.ratio}")
        if not 0 <= self.min_per_second < math.inf:
            raise ValueError(f"min_per_second must be >= 0 and finite, got {self.min_per_second}")
        if not 1 <= self.max_tokens < math.inf:
            raise ValueError(f"max_tokens must be finite and >= 1, the price of a retry, got {self.max_tokens}")
        if not 0 <= self.tokens <= self.max_tokens:
            raise ValueError(f"tokens must be from 0 to max_tokens ({self.max_tokens}), got {self.tokens}")

    def deposit(self, now: float) -> RetryBudget:
        """Return the budget after a first attempt at `now`; a full one stays full, whenever that is."""
        if self.tokens >= self.max_tokens:
            return self
        return self._at(now, gained=self.ratio)

    def withdraw(self, now: float) -> RetryBudget | None:
        """Return the budget after a retry at `now`, or None if it does not allow one.

        >>> budget = RetryBudget(tokens=1.0, min_per_second=0.0).withdraw(now=0.0)
        >>> budget.tokens, budget.withdraw(now=0.0)
        (0.0, None)
        """
        refreshed = self._at(now, gained=0.0)
        # Ten deposits of 0.1 add up to slightly less than 1.
        if refreshed.tokens < 1 - 1e-9:
            return None
        return msgspec.structs.replace(refreshed, tokens=max(0.0, refreshed.tokens - 1))

    def allows(self, now: float) -> bool:
        """Tell whether it allows a retry at `now`, which is not withdrawn.

        >>> RetryBudget(tokens=1.0).allows(now=0.0), RetryBudget(tokens=0.0, min_per_second=0.0).allows(now=9.0)
        (True, False)
        """
        return self.tokens >= 1 or self.withdraw(now) is not None

    def give_back(self) -> RetryBudget:
        """Return the budget after a retry that was withdrawn but not made."""
        return msgspec.structs.replace(self, tokens=min(self.max_tokens, self.tokens + 1))

    def wait(self, now: float) -> float:
        """Return the seconds from `now` until time alone allows a retry; infinity if it never does.

        >>> RetryBudget(tokens=0.5, min_per_second=2.0).wait(now=0.0)
        0.25
        """
        missing = max(0.0, 1 - self._at(now, gained=0.0).tokens)
        return missing / self.min_per_second if self.min_per_second else math.inf

    def _at(self, now: float, *, gained: float) -> RetryBudget:
        tokens, updated = self.tokens + gained, self.updated
        if updated is None:
            updated = now
        elif now > updated:
            tokens, updated = tokens + (now - updated) * self.min_per_second, now
        return RetryBudget(
            ratio=self.ratio,
            min_per_second=self.min_per_second,
            max_tokens=self.max_tokens,
            tokens=min(self.max_tokens, tokens),
            updated=updated,
        )


class SharedRetryBudget:
    """A retry budget shared by all calls to one target, which must be on one event loop and use one clock.

    >>> shared = SharedRetryBudget(RetryBudget(tokens=1.0, min_per_second=0.0))
    >>> shared.withdraw(now=0.0), shared.withdraw(now=0.0)
    (True, False)
    """

    def __init__(self, budget: RetryBudget | None = None) -> None:
        self.budget = RetryBudget() if budget is None else budget
        check_config("budget", self.budget, RetryBudget)

    def deposit(self, now: float) -> None:
        """Deposit for a first attempt at `now`."""
        self.budget = self.budget.deposit(now)

    def withdraw(self, now: float) -> bool:
        """Withdraw a retry at `now`; False if the budget does not allow one."""
        after = self.budget.withdraw(now)
        self.budget = after or self.budget
        return after is not None

    def give_back(self) -> None:
        """Give back a retry that was withdrawn but not made."""
        self.budget = self.budget.give_back()

    def __repr__(self) -> str:
        return f"<SharedRetryBudget {self.budget.tokens:.1f} of {self.budget.max_tokens:g} retries>"
