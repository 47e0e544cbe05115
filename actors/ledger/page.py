"""One account of a book: what it may spend, and where every micro-unit that was ever reserved in it has gone.

An account is changed in place, because one call changes four of them twice; what is handed out is a `Statement`, which
is a value. If its cap renews, each period has figures of its own, beside those of its account. Money belongs to the
period in which it was reserved: a reservation draws on the account and on that period, and so whatever becomes of it
later counts there. A rolling window is made of many short periods, its slices.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from actors.ledger.statement import CapPeriod, Statement
from actors.money import ZERO, Micros, micros_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actors.ledger.periods import Period, Renewal


class AccountState:
    """The figures of one account as a book keeps them, changed in place: plain integers of micro-units."""

    __slots__ = (
        "alert_at",
        "base_cap",
        "beyond",
        "cap",
        "estimated",
        "held",
        "is_alerted",
        "is_closed",
        "is_paused",
        "limit",
        "name",
        "on_hold",
        "open",
        "overcharged",
        "overdraft",
        "overdrawn",
        "parent",
        "released",
        "renewing",
        "reserved",
        "reserved_ever",
        "settled",
        "used",
    )

    def __init__(
        self,
        name: str,
        cap: Micros | None,
        *,
        overdraft: Micros = ZERO,
        alert_percent: int = 80,
        parent: AccountState | None = None,
    ) -> None:
        self.name = name
        self.parent = parent
        self.estimated = 0
        self.overdraft = int(overdraft)
        self.overdrawn = 0
        """How much of it the calls under way may use, beyond what is reserved for them."""
        self.reserved = self.held = self.settled = self.used = 0
        self.reserved_ever = self.released = self.overcharged = 0
        self.open = self.on_hold = 0
        """How many reservations belong to calls under way, and how many are held."""
        self.beyond = 0
        """How far it may be over its cap beside what was overcharged: the cap was lowered, or a call charged late."""
        self.renewing: RenewingCap | None = None
        """Its cap if that renews; then it has none itself, and its periods have."""
        self.is_alerted = self.is_closed = self.is_paused = False
        self.set_cap(cap, alert_percent=alert_percent)
        self.base_cap = cap
        """The cap that was set, and not what an answer has made of it."""

    def set_cap(self, cap: Micros | None, *, alert_percent: int) -> None:
        """Change the cap; one below what is used already lets nothing more be reserved."""
        self.cap = cap
        self.limit: float = math.inf if cap is None else int(cap)
        # Rounded up, so it is the first micro-unit at which the percentage is reached.
        self.alert_at: float = math.inf if cap is None else max(1, -(-int(cap) * alert_percent // 100))
        if self.used > self.limit:
            self.beyond = max(self.beyond, self.used - int(self.limit))
        if self.is_paused:
            self.limit = -math.inf

    def pause(self, *, is_paused: bool = True) -> None:
        """Let nothing more be reserved, whatever the cap, or as much again as the cap allows."""
        self.is_paused = is_paused
        self.limit = -math.inf if is_paused else math.inf if self.cap is None else int(self.cap)

    def broken_invariants(self) -> Iterator[str]:
        """Name what does not add up, and a cap that is exceeded without an overcharge or the like to explain it."""
        yield from self.statement().broken_invariants()
        if not self.is_paused and self.used > self.limit + self.overcharged + self.beyond:
            yield f"account {self.name!r} is over its cap: {self!r}"

    def may_overdraw(self, amount: int, beyond: int) -> bool:
        """Tell whether `amount` can be reserved for a call that may cost so much `beyond` it."""
        is_free = self.cap is None and not self.is_paused
        return is_free or (self.used + amount <= self.limit and self.overdrawn + beyond <= self.overdraft)

    def may_allow_later(self, amount: int) -> bool:
        """Tell whether `amount` could be reserved if calls under way gave back what is reserved for them."""
        return self.used - self.reserved + amount <= self.limit

    @property
    def renewal(self) -> Renewal | None:
        """When the cap renews; None if it does not."""
        return None if self.renewing is None else self.renewing.renewal

    @property
    def cap_for_good(self) -> Micros | None:
        """The cap of each period, or of all time, and not what an answer has made of it."""
        return self.base_cap if self.renewing is None else self.renewing.cap

    @property
    def drawn(self) -> tuple[AccountState, ...]:
        """What a reservation in it draws on: itself, and the period if its cap renews."""
        return (self,) if self.renewing is None else (self, self.renewing.current)

    @property
    def share(self) -> float | None:
        """How much of the cap is used, from 0 to 1; None without a cap."""
        return self.used / self.cap if self.cap else None

    @property
    def path(self) -> tuple[AccountState, ...]:
        """The account and those above it, up to the root."""
        path, above = (self,), self.parent
        while above is not None:
            path, above = (*path, above), above.parent
        return path

    @property
    def available(self) -> Micros:
        """What can still be reserved; of use only if the account has a cap."""
        return micros_of(max(0, int(self.cap or 0) - self.used))

    def statement(self) -> Statement:
        """Return the figures as they are now."""
        renewing = self.renewing
        return Statement(
            name=self.name,
            cap=self.cap if renewing is None else renewing.in_force,
            renewal=self.renewal,
            period=None if renewing is None else renewing.figures(),
            reserved=micros_of(self.reserved),
            held=micros_of(self.held),
            settled=micros_of(self.settled),
            reserved_ever=micros_of(self.reserved_ever),
            released=micros_of(self.released),
            overcharged=micros_of(self.overcharged),
            estimated=micros_of(self.estimated),
            overdraft=micros_of(self.overdraft),
            parent=None if self.parent is None else self.parent.name,
            is_closed=self.is_closed,
            is_paused=self.is_paused,
        )

    def __repr__(self) -> str:
        return f"<AccountState {self.statement()}>"


class PeriodState(AccountState):
    """The figures of one period of an account, which other slices of the same window leave so much of its cap."""

    __slots__ = ("elsewhere", "elsewhere_reserved", "is_over", "period")

    def __init__(self, name: str, period: Period, *, overdraft: int = 0) -> None:
        self.period = period
        self.elsewhere = self.elsewhere_reserved = 0
        """What other slices of the window use, and how much of that is reserved for calls under way."""
        self.is_over = False
        super().__init__(name, None, overdraft=micros_of(overdraft))

    def allow(self, cap: Micros | None, *, earlier: Sequence[PeriodState], alert_percent: int) -> None:
        """Let it have what these other slices leave of a cap."""
        self.elsewhere = sum(one.used for one in earlier)
        self.elsewhere_reserved = sum(one.reserved for one in earlier)
        self.set_cap(cap, alert_percent=alert_percent)

    def set_cap(self, cap: Micros | None, *, alert_percent: int) -> None:
        super().set_cap(cap, alert_percent=alert_percent)
        self.limit -= self.elsewhere
        self.alert_at -= self.elsewhere
        if self.used > self.limit:
            self.beyond = max(self.beyond, self.used - int(self.limit))

    def end(self, *, may_grow: bool) -> None:
        """Note that another period has begun, so that this one raises no alert any more.

        Unless it `may_grow`, a repetition of one of its calls that costs more is refused.
        """
        self.is_over, self.is_alerted, self.alert_at = True, False, math.inf
        if not may_grow:
            self.limit = min(self.limit, self.used)

    def may_allow_later(self, amount: int) -> bool:
        """Tell whether calls under way may leave `amount`, those of other slices included."""
        return super().may_allow_later(amount - self.elsewhere_reserved)

    @property
    def available(self) -> Micros:
        """What can still be reserved."""
        return micros_of(max(0, int(self.cap or 0) - self.used - self.elsewhere))

    @property
    def share(self) -> float | None:
        """How much of the cap is used, from 0 to 1; None without a cap."""
        return (self.used + self.elsewhere) / self.cap if self.cap else None


class RenewingCap:
    """The cap of one account, and its periods: the `current` one, and of a window the `earlier` slices that count.

    `raised` is another cap, which holds until the first period that does not begin before `raised_until`.
    """

    __slots__ = ("_alert_percent", "cap", "current", "earlier", "raised", "raised_until", "renewal")

    def __init__(self, renewal: Renewal, cap: Micros | None, current: PeriodState, *, alert_percent: int) -> None:
        self._alert_percent = alert_percent
        self.renewal = renewal
        self.cap = cap
        self.raised: Micros | None = None
        self.raised_until = 0
        self.current = current
        self.earlier: list[PeriodState] = []

    @property
    def in_force(self) -> Micros | None:
        """The cap of the current period."""
        return self.raised if self.current.period.start < self.raised_until else self.cap

    def next_period(self, at: float) -> Period | None:
        """Return the period of a moment if it is after the current one; a clock that goes back begins none."""
        return self.renewal.period(at) if at >= self.current.period.end else None

    def begin(self, period: Period) -> None:
        """Begin a period; what is left of the one before is not carried over."""
        before = self.current
        was_alerted = before.is_alerted
        before.end(may_grow=not self.renewal.rolling)
        self.current = PeriodState(before.name, period, overdraft=before.overdraft)
        self.current.is_alerted = was_alerted
        reach = period.start - self.renewal.slices * (period.end - period.start)
        self.earlier = [one for one in (*self.earlier, before) if self.renewal.rolling and one.period.start >= reach]
        self.refresh()

    def set_cap(self, cap: Micros | None, *, overdraft: int, only_now: bool = False) -> None:
        """Change the cap, or that of the current period alone: of a window, until all that counts now has passed."""
        if only_now:
            period = self.current.period
            self.raised, self.raised_until = cap, self.end_of_all(period)
        else:
            self.cap, self.raised, self.raised_until = cap, None, 0
        self.current.overdraft = overdraft
        self.refresh()

    def end_of_all(self, period: Period) -> int:
        """Return when a period that begins has no money to count that counts now."""
        return period.end + self.renewal.slices * (period.end - period.start)

    def refresh(self) -> None:
        """Let the current period have what earlier slices leave of the cap, as they are now."""
        self.current.allow(self.in_force, earlier=self.earlier, alert_percent=self._alert_percent)

    def renews_at(self, amount: int) -> float | None:
        """Return when `amount` can be had though nothing is given back, in seconds since 1970; None for never."""
        if self.cap is not None and amount > self.cap:
            return None
        if not self.renewal.rolling:
            return float(self.current.period.end)
        period, left = self.current.period, self.current.elsewhere + self.current.used
        length = period.end - period.start
        for one in (*self.earlier, self.current):
            left -= one.used
            if self.cap is None or left + amount <= self.cap:
                return float(one.period.start + (self.renewal.slices + 1) * length)
        return None

    def figures(self) -> CapPeriod:
        """Return what counts against the cap now."""
        counted = (*self.earlier, self.current)
        period = self.current.period
        start = period.start - self.renewal.slices * (period.end - period.start)
        return CapPeriod(
            start=float(start),
            end=float(period.end),
            reserved=micros_of(sum(one.reserved for one in counted)),
            held=micros_of(sum(one.held for one in counted)),
            settled=micros_of(sum(one.settled for one in counted)),
        )

    def __repr__(self) -> str:
        return f"<RenewingCap {self.in_force}/{self.renewal} from {self.current.period.start}>"
