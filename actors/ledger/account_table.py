"""The accounts of a book by name, and the tree that they form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actors.errors.families import Permanent
from actors.ledger.entries import (
    AccountOpened,
    AccountPaused,
    AccountResumed,
    CapChanged,
    CapRenewed,
    QuestionAnswered,
    QuestionAsked,
)
from actors.ledger.page import AccountState, PeriodState, RenewingCap
from actors.ledger.periods import Period

if TYPE_CHECKING:
    from actors.ledger.entries import AccountEntry
    from actors.ledger.periods import Renewal
    from actors.ledger.statement import Statement
    from actors.money import Micros

TOTAL = "total"
MAX_DEPTH = 16
"""How many accounts one request may draw on from a leaf of the tree to its root."""
MAX_COMBINATIONS = 10_000
"""The sets of accounts drawn on together whose states are remembered, so that each is looked up once."""


class AccountTable:
    """The accounts of one book by name, with those that were closed while money is left in them.

    An account has `crossed` its alert if `alert_percent` of its cap came to be used, or ceased to be.
    """

    def __init__(self, *, alert_percent: int = 80) -> None:
        self.alert_percent = alert_percent
        self.total = AccountState(TOTAL, None)
        """The other side of every entry: it draws on each reservation once."""
        self.states: dict[str, AccountState] = {}
        self.closed: set[str] = set()
        """The names among them that were closed and have money left."""
        self.combinations: dict[tuple[str, ...], tuple[AccountState, ...]] = {}
        """What `drawn_on` returned last for these names."""
        self.crossed: list[AccountState] = []
        """The accounts that have crossed their alert since `take_crossed` was last called."""
        self.has_tree = False
        """Whether any account was ever opened below another."""
        self.questions: dict[str, QuestionAsked] = {}
        """What the owner of the money was asked about an account and has not answered yet."""
        self.refused: dict[str, int | None] = {}
        """The accounts for which more was refused, and the start of the period up to which; None is for good."""
        self.next_question = 1
        self.has_renewing = False
        """Whether the cap of any account was ever one that renews."""

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

    @property
    def open_count(self) -> int:
        """How many accounts are open."""
        return len(self.states) - len(self.closed)

    def all_states(self) -> tuple[AccountState, ...]:
        """Return every account, the periods that count, and the total."""
        periods = [
            one
            for state in self.states.values()
            if state.renewing is not None
            for one in (*state.renewing.earlier, state.renewing.current)
        ]
        return (*self.states.values(), *periods, self.total)

    def statement(self, name: str | None = None) -> Statement:
        """Return the figures of an account, or of all together for None; raises `Permanent` if it is not known."""
        state = self.total if name is None else self.states.get(name)
        if state is None:
            raise Permanent(
                f"there is no account {name!r}, neither open nor closed with money left in it; "
                "check its name, or open it first"
            )
        statement = state.statement()
        asked = None if name is None else self.questions.get(name)
        return statement if asked is None else msgspec.structs.replace(statement, question=asked.question)

    def opened(self, name: str) -> AccountState:
        """Return an open account; raises `Permanent` if there is none of that name."""
        state = self.states.get(name)
        if state is None or state.is_closed:
            raise Permanent(f"there is no open account {name!r}; open it first", outcome="not_started")
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
        states = tuple(drawn for name in accounts for drawn in self.opened(name).drawn)
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
                self._open(entry)
            case CapChanged():
                self._change_cap(self.states[entry.account], entry)
            case CapRenewed():
                self._renew(self.states[entry.account], entry)
            case AccountPaused() | AccountResumed():
                self.states[entry.account].pause(is_paused=isinstance(entry, AccountPaused))
            case QuestionAsked():
                self.questions[entry.account] = entry
                self.next_question = entry.question + 1
            case QuestionAnswered():
                self._answer(self.states[entry.account], entry)
            case _:
                self._forget_question(entry.account)
                state = self.states[entry.account]
                state.is_closed = True
                self.closed.add(state.name)
                self.forget_if_empty(state)

    def _open(self, entry: AccountOpened) -> None:
        parent = None if entry.parent is None else self.opened(entry.parent)
        self.has_tree = self.has_tree or parent is not None
        self.closed.discard(entry.account)
        state = self.states[entry.account] = AccountState(
            entry.account,
            entry.cap if entry.renewal is None else None,
            overdraft=entry.overdraft,
            alert_percent=self.alert_percent,
            parent=parent,
        )
        if entry.renewal is not None:
            self._begin_renewing(state, entry.renewal, entry.cap, at=entry.at)

    def _begin_renewing(self, state: AccountState, renewal: Renewal, cap: Micros | None, *, at: float) -> None:
        self.has_renewing = True
        first = PeriodState(state.name, renewal.period(at), overdraft=state.overdraft)
        state.renewing = RenewingCap(renewal, cap, first, alert_percent=self.alert_percent)
        state.renewing.refresh()

    def _change_cap(self, state: AccountState, entry: CapChanged) -> None:
        """Change a cap; if it renews otherwise than before, a period begins in which nothing is used yet."""
        self._forget_question(entry.account)
        state.overdraft = state.overdraft if entry.overdraft is None else int(entry.overdraft)
        before, renewing = state.is_alerted, state.renewing
        if renewing is not None and renewing.renewal == entry.renewal:
            renewing.set_cap(entry.cap, overdraft=state.overdraft, only_now=entry.only_now)
            self.check_alert(renewing.current)
            return
        if renewing is not None:
            before = renewing.current.is_alerted
            renewing.current.end(may_grow=True)
        state.renewing = None
        if not entry.only_now:
            state.base_cap = entry.cap
        state.set_cap(entry.cap if entry.renewal is None else None, alert_percent=self.alert_percent)
        if entry.renewal is not None:
            self._begin_renewing(state, entry.renewal, entry.cap, at=entry.at)
        limited = state.drawn[-1]
        state.is_alerted = False
        limited.is_alerted = before
        self.check_alert(limited)

    def _renew(self, state: AccountState, entry: CapRenewed) -> None:
        if state.renewing is not None:
            state.renewing.begin(Period(entry.start, entry.end))
            self.check_alert(state.renewing.current)
            self.questions.pop(state.name, None)
            until = self.refused.get(state.name)
            if until is not None and entry.start >= until:
                del self.refused[state.name]

    def _answer(self, state: AccountState, entry: QuestionAnswered) -> None:
        self._forget_question(state.name)
        if entry.cap is None:
            renewing = None if entry.for_good else state.renewing
            self.refused[state.name] = None if renewing is None else renewing.end_of_all(renewing.current.period)

    def _forget_question(self, account: str) -> None:
        self.questions.pop(account, None)
        self.refused.pop(account, None)

    def account_of(self, question: int) -> str:
        """Return the account of a question that is not answered yet; raises `Permanent` if it is none."""
        for account, asked in self.questions.items():
            if asked.question == question:
                return account
        raise Permanent(
            f"question {question} is not open: it was answered, or there is no need of more any more; "
            "a statement of the account names the one that is"
        )

    def _refresh(self) -> None:
        for state in self.states.values():
            if state.renewing is not None:
                state.renewing.refresh()
                self.check_alert(state.renewing.current)

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
        self._refresh()
        self.crossed = [
            drawn for state in self.states.values() if not state.is_closed for drawn in state.drawn if drawn.is_alerted
        ]

    def forget_if_empty(self, state: AccountState) -> None:
        """Forget a closed account if no money is left in it."""
        if state.open == state.on_hold == 0 and self.states.get(state.name) is state:
            del self.states[state.name]
            self.closed.discard(state.name)

    def __repr__(self) -> str:
        return f"<AccountTable {', '.join(self.states) or 'empty'}>"
