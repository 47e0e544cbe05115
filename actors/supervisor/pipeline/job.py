"""One logical request while it is served: what it has tried, spent and been refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.errors.families import (
    AllProvidersFailed,
    Attempt,
    BudgetExceeded,
    CallFailed,
    Charged,
    DeadlineTooShort,
    NotAdmitted,
    OutcomeUnknown,
    Transient,
    Unclassified,
)
from actors.providers.selection import NO_SIGNALS, Signals
from actors.supervisor.messages import SmartRequest, SmartResult
from actors.supervisor.targets.candidates import NO_CANDIDATES, Candidates
from actors.supervisor.targets.waiting import QueueEntry
from actors.transports.reconciliation import Answered, Lost, NeverRan
from actors.transports.transport import ProviderCall, ProviderReply

if TYPE_CHECKING:
    from actors.money import Micros
    from actors.providers.provider import Provider
    from actors.supervisor.payments.held_call import HeldCall
    from actors.supervisor.pipeline.routing import Tried
    from actors.supervisor.targets.admission import Full, Later, Never
    from actors.supervisor.targets.target import Target


class Job:
    """One logical request while it is served."""

    def __init__(self, message: SmartRequest, request_id: str, *, started: float, deadline: float) -> None:
        self.message = message
        self.request_id = request_id
        self.started = started
        self.deadline = deadline
        self.key = message.idempotency_key or request_id
        self.place = QueueEntry(message.tenant or message.account or "default")
        self.candidates: Candidates = NO_CANDIDATES
        self.deprioritized: tuple[str, ...] = ()
        self.rated: dict[str, Provider] = {}
        """Those of them whose answers were scored, as good as that has shown them to be."""
        self.signals: Signals = NO_SIGNALS
        self.unhealthy: tuple[str, ...] = ()
        self.tried: dict[str, Tried] = {}
        self.refused: dict[str, NotAdmitted | Full | Later | Never] = {}
        self.broke: dict[str, BudgetExceeded] = {}
        """Those for whom there was no money when it was last asked for."""
        self.broke_until = 0.0
        """When to ask for it again, in loop time: not whenever somebody leaves a line, or all who wait would do so."""
        self.has_kept_broke = False
        """Whether it was not asked for again although something else has changed."""
        self.attempts: list[Attempt] = []
        self.calls = self.under_way = 0
        self.last = ""
        """Who was called last."""
        self.cost = 0
        """What the request is known to have cost, in micro-units."""
        self.held: HeldCall | None = None
        """The call that may have been paid already; until that is known, nobody else is."""
        self.left_unknown = False
        """Whether a call may have been paid, and others are paid besides."""
        self.may_pay_again = False
        """Whether what was paid before is no reason not to pay: a failure that was charged, or one left as unknown."""

    @property
    def held_at(self) -> str | None:
        """Who may have been paid already."""
        return None if self.held is None else self.held.target.name

    def repeats(self, target: Target) -> bool:
        """Tell whether a call to `target` repeats, under its idempotency key, one that may have been paid."""
        return self.held is not None and self.held.target is target and target.idempotent == "key"

    def settle(self, call: HeldCall, charged: Charged, cost: Micros | None) -> int:
        """Note what a call cost, and return that in micro-units; None is what was reserved."""
        reserved = call.reservation.amount
        if charged == "held" and (reserved or call.target.paid):
            self.held = call
        elif charged == "yes":
            cost = reserved if cost is None else cost
            self.cost += cost
            self.held, self.may_pay_again = None, True
            return cost
        # What was not charged may repeat what was: then that is as unknown as before.
        return 0

    def found(self, finding: Answered | NeverRan | Lost) -> CallFailed | ProviderReply:
        """Note what became of the call that may have been paid, and return its answer, or what it failed with."""
        held, self.held = self.held, None
        assert held is not None  # noqa: S101 - there is nothing to find out about otherwise.
        name = held.target.name
        match finding:
            case Answered(reply):
                self.cost += held.reservation.amount if reply.cost is None else reply.cost
                return reply
            case NeverRan():
                return Transient(f"{name!r} never ran the call, or called it off", provider=name, outcome="not_started")
            case Lost(cost):
                self.cost += held.reservation.amount if cost is None else cost
                self.may_pay_again = True
                return Unclassified(f"{name!r} was paid, and its answer is lost", provider=name, charged="yes")

    def call_to(self, target: Target, *, timeout: float) -> ProviderCall:
        """Return the call to make, which has `timeout` seconds (> 0)."""
        listing, message = self.candidates.listings[target.name], self.message
        return ProviderCall(
            service=message.service,
            input=message.input,
            request_id=self.request_id,
            idempotency_key=self.key,
            max_cost=listing.provider.price,
            timeout=timeout,
            provider=target.name,
        )

    def result(self, reply: ProviderReply) -> SmartResult:
        """Return the answer to the request."""
        return SmartResult(
            output=reply.output,
            provider=self.last,
            cost=self.cost,
            attempts=self.calls,
            request_id=self.request_id,
            failures=tuple(self.attempts),
        )

    def failure(self, because: CallFailed | None = None) -> CallFailed:
        """Return the error of a request for which nothing more can be done, `because` no call may be made any more."""
        because_of_all = () if because is None else (because,)
        refusals = (one if isinstance(one, NotAdmitted) else one.refusal for one in self.refused.values())
        refused = (*refusals, *because_of_all)
        if self.held_at is not None:
            why = because or (self.attempts[-1].error if self.attempts else "it was refused")
            return OutcomeUnknown(
                f"{self.held_at!r} may have been paid, and it could not be found out: {why}", provider=self.held_at
            )
        if self.attempts:
            return AllProvidersFailed(
                self.message.service, attempts=self.attempts, refused=refused, left_unknown=self.left_unknown
            )
        if because is not None:
            return because
        if refused:
            return refused[0]
        return DeadlineTooShort(needed=0.0, left=0.0)

    def __repr__(self) -> str:
        return f"<Job {self.request_id} {self.calls} calls, {len(self.refused)} refusals, until {self.deadline:.3f}>"
