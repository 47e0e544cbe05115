"""The accounts of a book: what each may spend, and where every micro-unit that was ever reserved in it has gone.

An account is changed in place, because one call changes four of them twice; what is handed out is a `Statement`, which
is a value.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from actors.errors.families import Permanent
from actors.ledger.account import Account
from actors.ledger.entries import AccountOpened, CapChanged
from actors.money import ZERO, Micros, micros_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.ledger.entries import AccountEntry

TOTAL = "total"
MAX_DEPTH = 16
"""How many accounts one request may draw on from a leaf of the tree to its root."""
MAX_COMBINATIONS = 10_000
"""The sets of accounts drawn on together whose states are remembered, so that each is looked up once."""


class Statement(Account, frozen=True, kw_only=True):
    """The figures of an account at one moment; `settled` and the like count since it was opened.

    `reserved_ever == settled - overcharged + released + held + reserved`: what was reserved was spent, is free again,
    is kept for calls whose outcome is unknown, or belongs to calls under way. `overcharged` is what calls cost beyond
    what was reserved for them. `estimated` is the part of `settled` whose cost is not known, and that a later figure
    may correct. `overdraft` is how far the cap may be passed by calls for which only their estimate was left.
    What draws on the account draws on its `parent` too.
    """

    reserved_ever: Micros = ZERO
    released: Micros = ZERO
    overcharged: Micros = ZERO
    estimated: Micros = ZERO
    overdraft: Micros = ZERO
    parent: str | None = None
    is_closed: bool = False

    @property
    def used(self) -> Micros:
        """What counts against the cap."""
        return self.reserved + self.held + self.settled

    def broken_invariants(self) -> Iterator[str]:
        """Name what does not add up."""
        accounted = self.settled - self.overcharged + self.released + self.held + self.reserved
        if self.reserved_ever != accounted:
            yield f"{self.reserved_ever} was ever reserved in {self.name!r}, and {accounted} accounted for"
        figures = (self.reserved, self.held, self.settled, self.released, self.overcharged, self.reserved_ever)
        if not 0 <= self.estimated <= self.settled:
            yield f"{self.estimated} of {self.settled} settled in {self.name!r} is estimated"
        if min(figures) < 0:
            yield f"a figure of account {self.name!r} is below zero: {self!r}"


class AccountState:
    """The figures of one account as a book keeps them, changed in place: plain integers of micro-units."""

    __slots__ = (
        "alert_at",
        "beyond",
        "cap",
        "estimated",
        "held",
        "is_alerted",
        "is_closed",
        "limit",
        "name",
        "on_hold",
        "open",
        "overcharged",
        "overdraft",
        "overdrawn",
        "parent",
        "released",
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
        self.is_alerted = self.is_closed = False
        self.set_cap(cap, alert_percent=alert_percent)

    def set_cap(self, cap: Micros | None, *, alert_percent: int) -> None:
        """Change the cap; one below what is used already lets nothing more be reserved."""
        self.cap = cap
        self.limit: float = math.inf if cap is None else int(cap)
        # Rounded up, so it is the first micro-unit at which the percentage is reached.
        self.alert_at: float = math.inf if cap is None else max(1, -(-int(cap) * alert_percent // 100))
        if self.used > self.limit:
            self.beyond = max(self.beyond, self.used - int(self.limit))

    def broken_invariants(self) -> Iterator[str]:
        """Name what does not add up, and a cap that is exceeded without an overcharge or the like to explain it."""
        yield from self.statement().broken_invariants()
        if self.used > self.limit + self.overcharged + self.beyond:
            yield f"account {self.name!r} is over its cap: {self!r}"

    def may_overdraw(self, amount: int, beyond: int) -> bool:
        """Tell whether `amount` can be reserved for a call that may cost so much `beyond` it."""
        is_free = self.cap is None
        return is_free or (self.used + amount <= self.limit and self.overdrawn + beyond <= self.overdraft)

    def may_allow_later(self, amount: int) -> bool:
        """Tell whether `amount` could be reserved if calls under way gave back what is reserved for them."""
        return self.used - self.reserved + amount <= self.limit

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
        return Statement(
            name=self.name,
            cap=self.cap,
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
        )

    def __repr__(self) -> str:
        return f"<AccountState {self.statement()}>"


class AccountTable:
    """The accounts of one book by name, with those that were closed while money is left in them.

    An account has `crossed` its alert if `alert_percent` of its cap came to be used, or ceased to be.
    """

    def __init__(self, *, alert_percent: int = 80) -> None:
        self.alert_percent = alert_percent
        self.total = AccountState(TOTAL, None)
        """The other side of every entry: it draws on each reservation once."""
        self.states: dict[str, AccountState] = {}
        self.combinations: dict[tuple[str, ...], tuple[AccountState, ...]] = {}
        """What `drawn_on` returned last for these names."""
        self.crossed: list[AccountState] = []
        """The accounts that have crossed their alert since `take_crossed` was last called."""
        self.has_tree = False
        """Whether any account was ever opened below another."""

    def is_open(self, name: str) -> bool:
        """Tell whether an account can be drawn on."""
        state = self.states.get(name)
        return state is not None and not state.is_closed

    def is_known(self, name: str) -> bool:
        """Tell whether a name is in use: by an open account, or by a closed one with money left in it."""
        return name in self.states

    def draining(self, name: str) -> AccountState | None:
        """Return an account that was closed while calls drew on it, and is drawn on still; else None."""
        state = self.states.get(name)
        return state if state is not None and state.is_closed and state.open else None

    def open_names(self) -> list[str]:
        """Return the names of the open accounts."""
        return [name for name, state in self.states.items() if not state.is_closed]

    def all_states(self) -> tuple[AccountState, ...]:
        """Return every account, and the total."""
        return (*self.states.values(), self.total)

    def statement(self, name: str | None = None) -> Statement:
        """Return the figures of an account, or of all together for None; raises `Permanent` if it is not known."""
        state = self.total if name is None else self.states.get(name)
        if state is None:
            raise Permanent(
                f"there is no account {name!r}, neither open nor closed with money left in it; "
                "check its name, or open it first"
            )
        return state.statement()

    def opened(self, name: str) -> AccountState:
        """Return an open account; raises `Permanent` if there is none of that name."""
        state = self.states.get(name)
        if state is None or state.is_closed:
            raise Permanent(f"there is no open account {name!r}; open it first")
        return state

    def parent_of(self, parent: str | None) -> AccountState | None:
        """Return the account below which one is to be opened; raises `Permanent` if that is not possible."""
        if parent is None:
            return None
        state = self.opened(parent)
        if len(state.path) >= MAX_DEPTH:
            raise Permanent(
                f"account {parent!r} is {MAX_DEPTH} deep already; open the account below one that is nearer to the root"
            )
        return state

    def below(self, name: str) -> list[AccountState]:
        """Return the open accounts below one, each before those that it is below."""
        if not self.has_tree:
            return []
        above = self.states[name]
        found = [state for state in self.states.values() if not state.is_closed and above in state.path[1:]]
        return sorted(found, key=lambda state: -len(state.path))

    def with_parents(self, accounts: tuple[str, ...]) -> tuple[str, ...]:
        """Return these accounts and all above them, each once; raises `Permanent` if one is not open."""
        paths = [state.name for name in accounts for state in self.opened(name).path]
        if len(set(accounts)) != len(accounts):
            return accounts  # `drawn_on` refuses that.
        return tuple(dict.fromkeys(paths))

    def leaf(self, name: str, accounts: tuple[str, ...]) -> str:
        """Return which of the accounts that are drawn on an account is above, or is itself; the nearest to the leaf."""
        for one in accounts:
            state = self.states.get(one)
            if state is not None and any(above.name == name for above in state.path):
                return one
        return name

    def drawn_on(self, accounts: tuple[str, ...]) -> tuple[AccountState, ...]:
        """Return the accounts that a reservation draws on, and the total; raises `Permanent` if it cannot."""
        states = tuple(self.opened(name) for name in accounts)
        if len(set(accounts)) != len(accounts):
            raise Permanent(
                f"a reservation draws on each account once, got {', '.join(accounts)}; list each account once"
            )
        if len(self.combinations) >= MAX_COMBINATIONS:
            self.combinations.clear()
        combined = self.combinations[accounts] = (*states, self.total)
        return combined

    def post(self, entry: AccountEntry) -> None:
        """Make a step that concerns an account and no reservation."""
        self.combinations.clear()
        match entry:
            case AccountOpened():
                parent = None if entry.parent is None else self.opened(entry.parent)
                self.has_tree = self.has_tree or parent is not None
                self.states[entry.account] = AccountState(
                    entry.account,
                    entry.cap,
                    overdraft=entry.overdraft,
                    alert_percent=self.alert_percent,
                    parent=parent,
                )
            case CapChanged():
                state = self.states[entry.account]
                state.set_cap(entry.cap, alert_percent=self.alert_percent)
                state.overdraft = state.overdraft if entry.overdraft is None else int(entry.overdraft)
                self.check_alert(state)
            case _:
                state = self.states[entry.account]
                state.is_closed = True
                self.forget_if_empty(state)

    def check_alert(self, state: AccountState) -> None:
        """Note if an account has crossed its alert, one way or the other."""
        if (state.used >= state.alert_at) is not state.is_alerted:
            state.is_alerted = not state.is_alerted
            self.crossed.append(state)

    def take_crossed(self) -> list[AccountState]:
        """Return the accounts that have crossed their alert since the last call."""
        crossed, self.crossed = self.crossed, []
        return crossed

    def forget_crossings(self) -> None:
        """After a replay, let only the open accounts that are beyond their alert now count as crossed, once each."""
        self.crossed = [state for state in self.states.values() if state.is_alerted and not state.is_closed]

    def forget_if_empty(self, state: AccountState) -> None:
        """Forget a closed account if no money is left in it."""
        if state.open == state.on_hold == 0 and self.states.get(state.name) is state:
            del self.states[state.name]

    def __repr__(self) -> str:
        return f"<AccountTable {', '.join(self.states) or 'empty'}>"
