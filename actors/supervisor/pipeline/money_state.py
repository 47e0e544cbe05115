"""Which providers a request cannot pay at present, and when to ask the ledger again. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from actors.errors.families import BudgetExceeded

FUNDS_RECHECK_INTERVAL = 1.0
"""Seconds after which a request that waits for something else asks again whether money has come back."""


class MoneyState(msgspec.Struct, frozen=True):
    """The providers that a request is `short_of` money for, by name, as the ledger answered when it was last asked.

    That is believed until `recheck_at`, in loop time: if it were asked at every change, all requests that wait would
    ask. `is_stale` says that something has changed since, and the ledger was not asked again.
    """

    short_of: Mapping[str, BudgetExceeded] = {}
    recheck_at: float = 0.0
    is_stale: bool = False

    def after_refusal(self, provider: str, refusal: BudgetExceeded, *, now: float) -> MoneyState:
        """Return the state after the ledger refused the price of one provider."""
        recheck_at = self.recheck_at if self.short_of else now + FUNDS_RECHECK_INTERVAL
        return MoneyState({**self.short_of, provider: refusal}, recheck_at, self.is_stale)

    def after_wait(self, *, now: float) -> MoneyState:
        """Return the state after the request has waited for something: believed on, or to be asked for anew."""
        if now >= self.recheck_at:
            return ENOUGH
        return self if self.is_stale else MoneyState(self.short_of, self.recheck_at, is_stale=True)

    def first_to_wait_for(self, names: Iterable[str]) -> str | None:
        """Return the first provider, in the order of `names`, whose price calls under way may free up; None if none."""
        return next((name for name in names if name in self.short_of and self.short_of[name].may_free_up), None)


ENOUGH = MoneyState()
"""The ledger has refused nothing since it was last asked."""
