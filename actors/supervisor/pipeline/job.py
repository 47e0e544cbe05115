"""One logical request while it is served: what it has tried, spent and been refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.errors.families import (
    AllProvidersFailed,
    Attempt,
    CallFailed,
    DeadlineTooShort,
    LeftAlone,
    NotAdmitted,
    OutcomeUnknown,
    Transient,
    Unclassified,
)
from actors.ledger.messages import Reserve
from actors.money import micros_of
from actors.providers.selection import NO_SIGNALS, Signals
from actors.supervisor.messages import SmartRequest, SmartResult
from actors.supervisor.pipeline.money_state import ENOUGH
from actors.supervisor.targets.admission import CallNeeds
from actors.supervisor.targets.candidates import NO_CANDIDATES, Candidates
from actors.supervisor.targets.dear_answers import price_of
from actors.supervisor.targets.refusals import Subject
from actors.supervisor.targets.waiting import QueueEntry
from actors.transports.reconciliation import Answered, Lost, NeverRan
from actors.transports.transport import ProviderCall, ProviderReply

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.ledger.messages import Intent
    from actors.providers.provider import Provider
    from actors.supervisor.payments.charge import Charge
    from actors.supervisor.payments.held_call import HeldCall, Resolution
    from actors.supervisor.pipeline.money_state import MoneyState
    from actors.supervisor.pipeline.routing import Tried
    from actors.supervisor.targets.admission import Full, Later, Never
    from actors.supervisor.targets.dear_answers import Quote
    from actors.supervisor.targets.target import Target
    from runtime import ActorRef


class Job:
    """One logical request while it is served."""

    def __init__(self, message: SmartRequest, request_id: str, *, started: float, deadline: float) -> None:
        self.message = message
        self.request_id = request_id
        self.started = started
        self.deadline = deadline
        self.key = message.idempotency_key or request_id
        self.entry = QueueEntry(message.tenant or message.account or "default")
        self.subject = Subject(message.service, message.input, tenant=self.entry.tenant)
        self.candidates: Candidates = NO_CANDIDATES
        self.deprioritized: tuple[str, ...] = ()
        """Providers to call after the others: unhealthy, fallen in scores, or held back by slow start."""
        self.rated: Mapping[str, Provider] = {}
        """The providers whose answers were scored, as good as their scores have shown them to be."""
        self.signals: Signals = NO_SIGNALS
        self.unhealthy: tuple[str, ...] = ()
        self.tried: dict[str, Tried] = {}
        self.refused: dict[str, NotAdmitted | Full | Later | Never] = {}
        self.money: MoneyState = ENOUGH
        self.attempts: list[Attempt] = []
        self.calls = self.under_way = 0
        self.last = ""
        """The provider that was called last."""
        self.cost = 0
        """What the request is known to have cost, in micro-units."""
        self.held: HeldCall | None = None
        """The call that may have been paid already; until that is known, no other provider is."""
        self.left_unknown = False
        """Whether a call may have been paid, and other providers are paid besides."""
        self.may_pay_again = False
        """Whether what was paid before is no reason not to pay: a failure that was charged, or one left as unknown."""

    @property
    def held_at(self) -> str | None:
        """The provider that may have been paid already."""
        return None if self.held is None else self.held.target.name

    def repeats(self, target: Target) -> bool:
        """Tell whether a call to `target` repeats, under its idempotency key, one that may have been paid."""
        return self.held is not None and self.held.target is target and target.idempotent == "key"

    def needs(self, target: Target) -> CallNeeds:
        """Return what a call to `target` would need to be admitted."""
        # A repetition under its key is owed: no other provider may be called meanwhile.
        is_retry = target.name in self.tried and not self.repeats(target)
        return CallNeeds(
            self.deadline,
            self.message.weights,
            is_retry,
            self.deadline - self.started,
            self.subject,
            price_of(self.candidates.listings[target.name], self.message),
        )

    def quote(self, target: Target) -> Quote:
        """Return what `target` lists for a call."""
        return target.quote(self.candidates.listings[target.name], self.message)

    def wish(self, target: Target, *, holder: ActorRef, wait: bool) -> Reserve:
        """Return what is asked of the ledger for a call to `target`; the caps of the market come to it there."""
        message = self.message
        return Reserve(
            key=self.key,
            provider=target.name,
            amount=target.to_reserve(self.quote(target)),
            accounts=() if message.account is None else (message.account,),
            budget=message.budget,
            intent=self._intent(target),
            wait=wait,
            holder=holder,
        )

    def _intent(self, target: Target) -> Intent:
        if self.repeats(target):
            return "repeat"
        # A provider whose calls are repeatable may be called, and paid, again although the outcome is unknown.
        repeatable = self.held is not None and target.idempotent == "repeatable"
        return "again" if self.may_pay_again or self.under_way or repeatable else "first"

    def charge(self, call: HeldCall, charge: Charge) -> int:
        """Note what a call was charged, and return that in micro-units; a cost of None is what was reserved."""
        if charge.charged == "held":
            self.held = call
        elif charge.charged == "yes":
            cost = int(call.reservation.amount if charge.cost is None else charge.cost)
            self.cost += cost
            self.held, self.may_pay_again = None, True
            return cost
        # What was not charged may repeat what was: then that is as unknown as before.
        return 0

    def reconciled(self, found: Resolution) -> CallFailed | ProviderReply:
        """Note what became of the call that may have been paid, and return its answer, or what it failed with."""
        held, self.held = self.held, None
        assert held is not None  # noqa: S101 - there is nothing to find out about otherwise.
        name = held.target.name
        match found:
            case Answered(reply):
                self.cost += int(held.reservation.amount if reply.cost is None else reply.cost)
                return reply
            case NeverRan():
                return Transient(f"{name!r} never ran the call, or cancelled it", provider=name, outcome="not_started")
            case Lost(cost):
                self.cost += int(held.reservation.amount if cost is None else cost)
                self.may_pay_again = True
                return Unclassified(f"{name!r} was paid, and its answer is lost", provider=name, charged="yes")

    def call_to(self, target: Target, *, timeout: float) -> ProviderCall:
        """Return the call to make, which has `timeout` seconds (> 0)."""
        message = self.message
        return ProviderCall(
            service=message.service,
            input=message.input,
            request_id=self.request_id,
            idempotency_key=self.key,
            max_cost=self.quote(target).price,
            timeout=timeout,
            provider=target.name,
        )

    def result(self, reply: ProviderReply) -> SmartResult:
        """Return the answer to the request."""
        return SmartResult(
            output=reply.output,
            provider=self.last,
            cost=micros_of(self.cost),
            attempts=self.calls,
            request_id=self.request_id,
            failures=tuple(self.attempts),
        )

    def failure(self, because: CallFailed | None = None) -> CallFailed:
        """Return the error of a request that has to end, `because` of a refusal or for want of another choice."""
        because_of_all = () if because is None else (because,)
        refusals = (one if isinstance(one, NotAdmitted) else one.refusal for one in self.refused.values())
        refused = (*refusals, *because_of_all)
        if self.held_at is not None:
            last = self.attempts[-1] if self.attempts else None
            why = because or (last.error if last is not None else "it was refused")
            return OutcomeUnknown(
                f"{self.held_at!r} may have been paid, and it could not be found out: {why}",
                provider=self.held_at,
                said=because.said if because is not None else last.said if last is not None else "",
            )
        if self.attempts:
            return AllProvidersFailed(
                self.message.service, attempts=self.attempts, refused=refused, left_unknown=self.left_unknown
            )
        if because is not None:
            return because
        if any(isinstance(refusal, LeftAlone) for refusal in refused):
            # Which of them is to be corrected first, is for the caller to say.
            return AllProvidersFailed(self.message.service, attempts=(), refused=refused)
        if refused:
            return refused[0]
        return DeadlineTooShort(needed=0.0, left=0.0)

    def __repr__(self) -> str:
        return f"<Job {self.request_id} {self.calls} calls, {len(self.refused)} refusals, until {self.deadline:.3f}>"
