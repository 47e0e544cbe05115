"""The answers of a provider that cost more than it lists: what is reserved since, and when it is left alone. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from actors.errors.families import Overpriced
from actors.money import ZERO, Micros
from actors.supervisor.targets.leaving import DEAR_WAITS, Leave, leave

if TYPE_CHECKING:
    from actors.supervisor.targets.quote import Quote

REMEMBERED_FOR = 3600.0
"""Seconds for which the dearest charge is what is reserved for a call."""
MAX_DEAR = 3
"""The dear answers within `COUNTED_FOR` after which a provider is left alone."""
COUNTED_FOR = 600.0
"""Seconds."""
MINUTE = 60.0


class DearAnswers(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The answers of one provider that cost more than the `price` it listed, while it lists it.

    `charges` are the dearest, each with the loop time from which on it is no longer of account: the dearest first, the
    latest last. `quoted` is what the dearest of them should have cost at most: with a tariff, that is not the price.
    `times` are those of the last three. Answers to calls that began before `since` count as charges alone.
    """

    price: Micros
    quoted: Micros = ZERO
    charges: tuple[tuple[float, Micros], ...] = ()
    times: tuple[float, ...] = ()
    leave: Leave | None = None
    since: float = -math.inf

    def dearest(self, now: float) -> Micros | None:
        """Return the dearest charge of the last hour, in micro-units; None if no answer was dear."""
        return next((cost for until, cost in self.charges if until > now), None)

    @property
    def what(self) -> str:
        """What the provider is left alone for, in words."""
        return "its price"

    @property
    def concerns(self) -> str:
        """What kind of thing that is."""
        return "price"

    def wait(self, now: float) -> float:
        """Return the seconds for which the provider is left alone; infinity while one call finds out."""
        return 0.0 if self.leave is None else self.leave.wait(now)

    def error(self, provider: str, wait: float) -> Overpriced:
        """Return the error of a request that may not call the provider for `wait` seconds."""
        charged = self.charges[0][1] if self.charges else None
        retry_after = None if wait == math.inf else wait
        return Overpriced(provider, quoted=self.quoted, charged=charged, retry_after=retry_after)

    def tried(self) -> DearAnswers:
        """Return what they are after a call has begun."""
        return self if self.leave is None else msgspec.structs.replace(self, leave=self.leave.tried())

    def released(self, now: float) -> DearAnswers:
        """Return what they are after the provider was released: what was charged is reserved all the same."""
        return DearAnswers(price=self.price, quoted=self.quoted, charges=self.charges, since=now)


def to_reserve(dear: DearAnswers | None, quote: Quote, *, now: float) -> Micros:
    """Return what to reserve for a call: its price, or the dearest charge of the last hour at this price."""
    if dear is None or dear.price != quote.listed:
        return quote.price
    return max(quote.price, dear.dearest(now) or ZERO)


def after_charge(
    dear: DearAnswers | None, quote: Quote, cost: Micros | None, *, started: float, now: float, random: float
) -> DearAnswers | None:
    """Return the dear answers after a call that began at `started` cost so much; a cost of None is its price.

    There are three cases:

    1. The answer was not dear. If it was made to find out, the provider is back, and its count begins anew.
    2. It was dear, and made to find out: the provider is left alone for longer.
    3. It was dear: the provider is left alone if that was too dear, or one of too many.
    """
    if cost is None or cost <= quote.price:
        if dear is not None and dear.price == quote.listed and dear.leave is not None and dear.leave.is_before(started):
            return msgspec.structs.replace(dear, leave=None, times=())
        return dear
    before = dear if dear is not None and dear.price == quote.listed else DearAnswers(price=quote.listed)
    # To the minute: so there are 60 at most.
    until = (now // MINUTE + 1) * MINUTE + REMEMBERED_FOR
    dearer = tuple(one for one in before.charges if one[0] > now and one[1] > cost)
    charges = dearer if dearer and dearer[-1][0] == until else (*dearer, (until, cost))
    times = (*before.times, now)[-MAX_DEAR:]
    is_too_dear = cost > quote.tolerance * quote.price
    is_one_of_too_many = len(times) == MAX_DEAR and now - times[0] <= COUNTED_FOR
    wait = before.leave
    if wait is not None:
        wait = leave(wait, DEAR_WAITS, now=now, random=random) if wait.is_before(started) else wait
    elif (is_too_dear or is_one_of_too_many) and started >= before.since:
        wait = leave(None, DEAR_WAITS, now=now, random=random)
    quoted = before.quoted if dearer else quote.price
    return msgspec.structs.replace(before, quoted=quoted, charges=charges, times=times, leave=wait)


def after_no_charge(dear: DearAnswers | None, *, started: float) -> DearAnswers | None:
    """Return the dear answers after a call that began at `started` told no cost: the next one may find out."""
    if dear is None or dear.leave is None:
        return dear
    wait = dear.leave.untold(started)
    return dear if wait is dear.leave else msgspec.structs.replace(dear, leave=wait)
