"""An actor that lets the ledger of one node spend parts of a budget whose ledger is on another node.

What is leased is reserved in the ledger at home, for this actor. If its node is lost, or is not heard of any more, that
ledger holds the money, as that of any call whose outcome is unknown: it is never free again before it is known what was
spent. So a node that is cut off may go on spending its lease, and the cap is kept.

A lease is half of an equal part of what is left at home: leases get smaller as money does, and at the end each is for
one call. Source: C. Polychronopoulos and D. Kuck, "Guided Self-Scheduling", IEEE Transactions on Computers C-36(12),
1987, which gives out what is left in such parts.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from actors.ledger.approvals import CapAnswer
from actors.ledger.messages import BookCall, GetStatement, Reservation, Reserve, SetCap
from actors.money import ZERO, Micros
from actors.validation import check_count, check_text
from runtime import Actor, ActorRef, Message, Refusal, Request, RuntimeFault, handles

if TYPE_CHECKING:
    from actors.ledger.statement import Statement

SETTLE_EVERY = 1.0
"""Seconds between two looks at what was spent, and is settled at home."""
HOME_TIMEOUT = 5.0
"""Seconds in which the ledger at home must answer; otherwise there is no more money now."""


class LeaseMoney(Request[CapAnswer], frozen=True):
    """Ask for a lease of at least the amount that is `needed`; answered with the cap of the node's account, or None."""

    needed: Micros


class SettleDue(Message, frozen=True):
    """Sent by the actor to itself: see what was spent."""


class BudgetLessee(Actor[LeaseMoney | SettleDue]):
    """Leases money of an account of the ledger `home` for the ledger of this node, which spends it by itself.

    `own` is the ref of that ledger. It has an account of the same name with a cap of "0", a journal on a disk of its
    machine, and as its `on_exhausted` a `MoreMoney`, which is told the ref of this actor. `nodes` is how many nodes
    lease of the account. What was spent is settled at home within two seconds. A lease of which nothing is spent for so
    long goes back, unless calls of the node are under way or held.
    """

    def __init__(self, account: str, *, home: ActorRef[Any], own: ActorRef[Any], nodes: int) -> None:
        check_text("account", account)
        check_count("nodes", nodes)
        self.account = account
        self._home, self._own, self._nodes = home, own, nodes
        self._leases: list[Reservation] = []
        self._settled = ZERO
        """What of the node's spending is settled at home, or is not for this instance to settle."""
        self._last_used = ZERO
        self._is_refused = False

    async def started(self) -> None:
        context = self.context
        self._life = f"{context.ref.path} of {context.random.getrandbits(64):x}"
        # What an earlier life leased is held at home; so no more of it is spent than was.
        statement = await self._own.ask(GetStatement(self.account), timeout=HOME_TIMEOUT)
        statement = await self._own.ask(SetCap(self.account, statement.used), timeout=HOME_TIMEOUT)
        self._settled = self._last_used = statement.used
        context.timers.every(SETTLE_EVERY, SettleDue())

    @property
    def leased(self) -> Micros:
        """The money of the leases that are not settled."""
        return Micros(sum(lease.amount for lease in self._leases))

    @handles(LeaseMoney)
    async def lease(self, message: LeaseMoney) -> CapAnswer:
        """Lease as much as is sensible, or at least what is needed."""
        needed = message.needed
        try:
            statement = await self._home.ask(GetStatement(self.account), timeout=HOME_TIMEOUT)
            amount = lease_of(statement.available, needed=needed, nodes=self._nodes)
            number = self.context.random.getrandbits(64)
            wish = Reserve(
                key=f"lease {number:x} of {self._life}",
                provider=self._life,
                amount=amount,
                accounts=(self.account,),
                holder=self.context.ref,
            )
            self._leases.append(await self._home.ask(wish, timeout=HOME_TIMEOUT))
        except (RuntimeFault, Refusal):
            self._is_refused = True
            return CapAnswer(None)
        return CapAnswer(Micros(self._settled + self.leased), for_good=True)

    @handles(SettleDue)
    async def settle(self, message: SettleDue) -> None:
        """Settle at home what was spent, and give back what is not."""
        statement = await self._own.ask(GetStatement(self.account), timeout=HOME_TIMEOUT)
        while self._leases and self._settled + self._leases[0].amount <= statement.settled:
            self._end(self._leases[0].amount)
        is_idle = statement.used == self._last_used == statement.settled
        self._last_used = statement.used
        if is_idle and self._leases:
            await self._give_back(statement)
        elif self._is_refused:
            self._is_refused = False
            await self._set_cap(Micros(self._settled + self.leased))  # From now on, more is asked for again.

    async def _give_back(self, statement: Statement) -> None:
        after = await self._set_cap(statement.used)
        if after.used != statement.used:  # A call has come meanwhile.
            await self._set_cap(Micros(self._settled + self.leased))
            return
        while self._leases:
            self._end(min(self._leases[0].amount, Micros(statement.settled - self._settled)))

    def _end(self, spent: Micros) -> None:
        """Settle the first lease at home, of which so much was spent."""
        lease = self._leases.pop(0)
        self._settled = Micros(self._settled + spent)
        with suppress(RuntimeFault):  # If home is lost, it holds the lease.
            self._home.tell(BookCall(lease, charged="yes", cost=spent) if spent else BookCall(lease, charged="no"))

    async def _set_cap(self, cap: Micros) -> Statement:
        statement: Statement = await self._own.ask(SetCap(self.account, cap), timeout=HOME_TIMEOUT)
        return statement

    def __repr__(self) -> str:
        return f"<BudgetLessee of {self.account!r}: {self.leased} leased, {self._settled} settled>"


class MoreMoney:
    """What the ledger of a node awaits if an account has no money left: the `lessee` leases more."""

    def __init__(self, account: str) -> None:
        self.account = account
        self.lessee: ActorRef[Any] | None = None

    async def __call__(self, statement: Statement, needed: Micros) -> CapAnswer:
        if self.lessee is None or statement.name != self.account:
            return CapAnswer(None)
        answer: CapAnswer = await self.lessee.ask(LeaseMoney(needed), timeout=3 * HOME_TIMEOUT)
        return answer


def lease_of(available: Micros | None, *, needed: Micros, nodes: int) -> Micros:
    """Return how much to lease of what is available: half of an equal part, and at least what is needed.

    >>> lease_of(Micros(5_000_000), needed=Micros(10_000), nodes=3)
    Micros(833333)
    >>> lease_of(Micros(40_000), needed=Micros(10_000), nodes=3)
    Micros(10000)
    """
    return needed if available is None else Micros(max(needed, available // (2 * nodes)))
