"""One logical request while it is served: what it has tried, spent and been refused."""

from __future__ import annotations

import copy
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from actors.errors.families import (
    AllProvidersFailed,
    Attempt,
    CallFailed,
    DeadlineTooShort,
    InputTooLong,
    LeftAlone,
    NotAdmitted,
    OutcomeUnknown,
    PoisonItem,
    Transient,
    WindowTooSmall,
)
from actors.ledger.errors import RiskExceeded
from actors.ledger.keys import is_own_id, provider_key, purchase_key, scoped_key
from actors.ledger.messages import Reserve
from actors.model_calls.request import demand_of_input
from actors.money import ZERO, micros_of
from actors.supervisor.messages import SmartRequest, SmartResult
from actors.supervisor.payments.held_call import PassedOver, charge_found, possible_charge
from actors.supervisor.payments.kept_answers import lost_answer
from actors.supervisor.pipeline.candidate_order import NO_ORDER, CandidateOrder
from actors.supervisor.pipeline.money_state import ENOUGH
from actors.supervisor.targets.admission import CallNeeds, Full
from actors.supervisor.targets.candidates import NO_CANDIDATES, Candidates
from actors.supervisor.targets.quote import InputDemand
from actors.supervisor.targets.refusals import Subject
from actors.supervisor.targets.waiting import QueueEntry
from actors.supervisor.targets.windows import largest, too_small
from actors.transports.reconciliation import Answered, Lost, NeverRan
from actors.transports.streaming import CallStream
from actors.transports.transport import ProviderCall, ProviderReply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from actors.errors.families import BudgetExceeded, PossibleCharge
    from actors.ledger.messages import Intent, Reservation
    from actors.ledger.receipt import Purchase
    from actors.market.market import Market
    from actors.money import Micros
    from actors.providers.provider import Provider
    from actors.supervisor.payments.charge import Charge
    from actors.supervisor.payments.held_call import HeldCall, Resolution
    from actors.supervisor.pipeline.money_state import MoneyState
    from actors.supervisor.pipeline.poison import ItemFailure
    from actors.supervisor.pipeline.routing import Tried
    from actors.supervisor.pipeline.shared_stream import SharedStream
    from actors.supervisor.targets.admission import Later, Never
    from actors.supervisor.targets.quote import Quote
    from actors.supervisor.targets.target import Target
    from actors.tracing.spans import TracedRequest
    from runtime import ActorRef


def risk_of(message: SmartRequest, market: Market) -> Micros | None:
    """Return how much a request may leave to be paid twice; None if only its budget bounds that."""
    match message.on_unknown:
        case "pay_again":
            return None
        case "hold":
            return ZERO
        case None if message.risk is not None:
            return message.risk
        case None:
            return ZERO if market.risk is None else market.risk


USUAL_PIECES = 200
"""The pieces of an answer by which streams are compared: a few paragraphs, if each piece is a token."""


class Job:
    """One logical request while it is served."""

    last: str = ""
    """The provider that was called last."""
    beside: str | None = None
    """The provider whose call takes unusually long, so that a second one is made beside it."""
    cost: int = 0
    """What the request is known to have cost, in micro-units."""
    held: HeldCall | None = None
    """The call that may have been paid already; until that is known, no other provider is."""
    kept_from_going_on: Reservation | None = None
    """A call of an earlier request under the key that ends this one, because it may have been paid."""
    cost_before: int = 0
    """What the request was known to have cost when it passed over a call last."""
    item_failures: tuple[ItemFailure, ...] = ()
    """The failures that may be due to the item."""
    chance: float | None = None
    """How likely these are by chance, once the item is a dead letter."""
    stream: CallStream | None = None
    """The stream of the last call."""
    shared: SharedStream | None = None
    """The pieces of its answer, if that comes as a stream and several may read it."""
    has_kept_cut: bool = False
    """Whether it is kept what came of a stream that ended early."""
    purchase: Purchase | None = None
    """What is paid for under the caller's key, if there is one."""
    served: Job | None = None
    """The request that is served in its place, if others ask for the same under its key."""
    charged_error: CallFailed | None = None
    """The last failure of a call that was charged, if it is under a caller's key."""
    may_pay_again: bool = False
    """Whether what was paid before is no reason not to pay: a failure that was charged, or one left as unknown."""
    is_shared: bool = False
    """Whether others may join it, who may have more time."""
    prefix: bytes | None = None
    """What tells its prompt from those that begin otherwise, if providers may have that cached."""
    saved: Micros = ZERO
    """What its answer cost less because of a cache, by its usage."""
    called_at: float = 0.0
    """When its last call began, in loop time."""
    calls: int = 0
    under_way: int = 0
    waits_for: object = None
    """What it waits for now: a `Wait`, a `QuotaWait`, or a `Choice` for which there is no money yet."""
    waits_since: float | None = None
    """Since when it has waited for its next call, in loop time."""
    trace: TracedRequest | None = None
    """The trace that tells of it, if there is one."""
    candidates: Candidates = NO_CANDIDATES
    order: CandidateOrder = NO_ORDER
    deprioritized: frozenset[str] = frozenset()
    """Providers to call after the others: passed over, fallen in scores, or held back by slow start."""
    rated: Mapping[str, Provider] = MappingProxyType({})
    """The providers whose answers were scored, as good as their scores have shown them to be."""
    unhealthy: tuple[str, ...] = ()
    full: tuple[Sequence[str], int] = ((), 0)
    """The providers that were not looked at, because they were full: so many of these, from the first on."""
    money: MoneyState = ENOUGH
    usual_interval: float = 0.0
    """The mean seconds between two pieces of the candidates' streams; 0 if it is not known, or for no stream."""

    def __init__(
        self, message: SmartRequest, request_id: str, *, started: float, deadline: float, risk: Micros | None = ZERO
    ) -> None:
        self.message = message
        self.risk = risk
        """What the calls that are passed over may hold together; None for no bound."""
        self.request_id = request_id
        self.started, self.deadline = started, deadline
        self.asked_key = key = message.idempotency_key or request_id
        """The key as its caller knows it."""
        self.key = self.provider_key = key
        """The key as the ledger knows it, and as providers are told it."""
        has_scope = message.tenant is not None or message.account is not None
        if has_scope or not is_own_id(key):
            self.key = scoped_key(key, tenant=message.tenant, account=message.account)
            self.provider_key = provider_key(self.key)
        self.entry = QueueEntry(message.tenant or message.account or "default", deadline, message.priority)
        self.subject = Subject(message.service, message.input, tenant=self.entry.tenant)
        self.demand = InputDemand(message.input)
        self.quotes: dict[str, Quote] = {}
        self._quoted_by: dict[str, tuple[Any, ...]] = {}
        self.sent: dict[str, Quote] = {}
        """What the providers with a tariff list for it: as it was last asked, and as a call was last sent."""
        self.tried: dict[str, Tried] = {}
        self.too_small: Mapping[str, int] = {}
        """The providers with windows, in tokens, that the input does not fit."""
        self.refused: dict[str, NotAdmitted | Full | Later | Never] = {}
        self.short_quotas: dict[str, bool] = {}
        """The shared quotas that had nothing for it at once, and whether it may wait for them."""
        self.attempts: list[Attempt] = []
        self.passed_over: dict[int, PassedOver] = {}
        """The calls that may have been paid, and besides which others are made; by the number of the reservation."""
        self.give_time: dict[object, Callable[[float], None]] = {}
        """How its calls under way are given more time, if others may join it."""
        self.looks: dict[str, int] = {}
        """How often each provider has said that it is at work on the request."""

    def wait_for(self, what: object, now: float) -> None:
        """Note what it waits for from `now` on; it waits since before if it has made no call meanwhile."""
        self.waits_for = what
        if self.waits_since is None:
            self.waits_since = now

    def buy(self, purchase: Purchase) -> None:
        """Set what is paid for under the caller's key: a further purchase has a key of its own."""
        self.purchase = purchase
        self.key = purchase_key(purchase.key, purchase.number)
        self.provider_key = provider_key(self.key)

    def give_until(self, deadline: float) -> None:
        """Let it go on until a later time, and its calls under way too, as far as their providers are given as much."""
        if (more := deadline - self.deadline) > 0:
            self.deadline = self.entry.deadline = deadline
            for give_time in self.give_time.values():
                give_time(more)

    def go_on(self, message: SmartRequest, *, risk: Micros | None) -> None:
        """Go on by the limits of another asker, who asks for the same."""
        self.message, self.risk, self.money = message, risk, ENOUGH
        tenant = message.tenant or message.account or "default"
        before = self.entry
        self.entry = QueueEntry(tenant, self.deadline, before.priority)
        self.entry.arrival = before.arrival
        self.refused.clear()
        self.short_quotas.clear()
        self.quotes.clear()
        self.full, self.unhealthy = ((), 0), ()

    @property
    def pieces(self) -> Sequence[Any]:
        """The pieces of its answer that have come, and that are not void, if they are kept."""
        return () if self.shared is None else self.shared.pieces

    @property
    def held_at(self) -> str | None:
        """The provider that may have been paid already."""
        return None if self.held is None else self.held.target.name

    def is_deprioritized(self, name: str) -> bool:
        """Tell whether a provider is to be called after the others."""
        return name in self.unhealthy or name in self.deprioritized or self.candidates.failed_check(name)

    def look_at_windows(self) -> None:
        """Leave out the providers whose windows the input exceeds, and put those behind whose windows it may exceed.

        There are two cases: 1. It has more tokens than that however they are counted. 2. It has so by the estimate.
        """
        demand = self.demand.by(demand_of_input)
        if demand is not None and demand.input_least:
            listings = self.candidates.listings
            self.leave_out(too_small(listings, demand.input_least))
            expected = demand.input_estimate + (demand.output_bound or 0)
            self.deprioritized = self.deprioritized.union(too_small(listings, expected))

    def leave_out(self, windows: Mapping[str, int]) -> None:
        """Note that the input does not fit these windows of providers."""
        self.too_small = {**self.too_small, **windows}
        for name, window in windows.items():
            if name not in self.tried:
                self.refused[name] = WindowTooSmall(name, window=window)

    def repeats(self, target: Target) -> bool:
        """Tell whether a call to `target` repeats, under its idempotency key, one that may have been paid."""
        return self.held is not None and self.held.target is target and target.idempotent == "key"

    def may_pass_over(self, reservation: Reservation) -> bool:
        """Tell whether another provider may be paid besides a call that may have been paid, by this request's risk."""
        listing = self.candidates.listings.get(reservation.provider)
        if listing is not None and listing.on_unknown == "hold":
            return False
        if self.risk is None:
            return True
        others = sum(one.at_risk for number, one in self.passed_over.items() if number != reservation.number)
        return 0 < self.risk >= others + reservation.amount

    def pass_over(self, reservation: Reservation, held: HeldCall | None) -> None:
        """Go on besides a call that may have been paid; what is at risk is for the ledger to bound."""
        self.held, self.cost_before = None, self.cost
        self.passed_over[reservation.number] = PassedOver(reservation, held)
        # The same provider might leave its answer unknown once more.
        self.deprioritized |= {reservation.provider}
        if self.risk is None:
            self.may_pay_again = True

    def hold_again(self, number: int) -> None:
        """Go on no more besides a call that was passed over, because the ledger allows no other to be paid besides."""
        passed = self.passed_over.get(number)
        if passed is not None and passed.held is not None:
            self.held = passed.held
            del self.passed_over[number]

    @property
    def goes_on_besides(self) -> bool:
        """Whether the request may go on after a call whose outcome is unknown."""
        return self.risk != 0 and (self.held is None or self.may_pass_over(self.held.reservation))

    def needs(self, target: Target) -> CallNeeds:
        """Return what a call to `target` would need to be admitted."""
        # A repetition under its key is owed: no other provider may be called meanwhile. Nor is a look at work a retry.
        name, tried = target.name, self.tried
        is_retry = bool(tried) and name in tried and not (self.repeats(target) or name in self.looks)
        return CallNeeds(
            self.deadline,
            self.weights(target),
            is_retry,
            self.deadline - self.started,
            self.subject,
            self.candidates.listings[name].provider.price,
        )

    def weights(self, target: Target) -> Mapping[str, int]:
        """Return what a call to `target` will use of limits: as the request says, or else by what its tokens cost."""
        if self.message.weights or self.candidates.listings[target.name].tariff is None:
            return self.message.weights
        tokens = (self.quotes.get(target.name) or self.quote(target)).tokens
        return self.message.weights if tokens is None else tokens.weights()

    def quote(self, target: Target, *, money: Micros | None = None) -> Quote:
        """Return what `target` lists for a call, which may cost no more than is left, and than `money`, if it can."""
        listing, left = self.candidates.listings[target.name], None
        if listing.tariff is None:
            return target.quote(listing, self.demand)
        sent = self.sent.get(target.name)
        if sent is not None and target.idempotent == "key":
            return sent  # Under one key, a provider may refuse another body.
        if self.message.budget is not None:
            kept = sum(int(one.amount) for one in self.possible_charges())
            left = micros_of(max(0, int(self.message.budget) - self.cost - kept))
        if money is not None:
            left = money if left is None else min(left, money)
        by, kept = (listing, left, target.quotes_by), self.quotes.get(target.name)
        if kept is not None and self._quoted_by.get(target.name) == by:
            return kept
        quote = self.quotes[target.name] = target.quote(listing, self.demand, money=left)
        # Quoting may have opened its gateway, which then counts for the next quote.
        self._quoted_by[target.name] = (listing, left, target.quotes_by)
        return quote

    def shorter_quote(self, target: Target, quote: Quote, refusal: BudgetExceeded) -> Quote | None:
        """Return what a call costs with a shorter answer, which the money that is left buys; None if that is too short.

        If calls under way may give back money, an answer is not cut to less than twice what it presumably has.
        """
        tokens = quote.tokens
        if tokens is None or tokens.max_output is None:
            return None
        shorter = self.quote(target, money=refusal.available)
        if shorter.price > refusal.available or shorter.tokens is None:
            return None
        bought = (shorter.tokens.max_output or 0) * tokens.demand.answers
        return None if refusal.may_free_up and bought < 2 * tokens.demand.output_estimate else shorter

    def priced(self, name: str) -> Provider:
        """Return a provider as it is ranked: with a tariff, at what the call will presumably cost there."""
        listing = self.candidates.listings[name]
        provider = self.rated.get(name) or listing.provider
        if self.message.stream is not None:
            provider = self._paced(name, provider)
        if listing.tariff is None:
            return provider
        target = self.candidates.targets[name]
        tokens = (self.quotes.get(name) or self.quote(target)).tokens
        return provider if tokens is None else msgspec.structs.replace(provider, price=tokens.estimate)

    def _paced(self, name: str, provider: Provider) -> Provider:
        """Return a provider as it is ranked for a stream: its response takes until the last piece of a usual answer.

        One whose streams are not known yet is as fast as the others are in the mean.
        """
        figures = self.candidates.targets[name].stream_figures
        interval = self.usual_interval if figures.piece_interval is None else figures.piece_interval
        time = provider.response_time + USUAL_PIECES * interval
        return msgspec.structs.replace(provider, response_time=time) if interval else provider

    def look_at_pieces(self) -> None:
        """Note the mean time between two pieces of a stream, over all candidates of which that is known."""
        targets = self.candidates.targets.values()
        known = [one for target in targets if (one := target.stream_figures.piece_interval) is not None]
        self.usual_interval = sum(known) / len(known) if known else 0.0

    def all_priced(self) -> list[Provider]:
        """Return all candidates as they are ranked."""
        return [self.priced(name) for name in self.candidates.listings]

    def wish(self, target: Target, quote: Quote, *, holder: ActorRef, wait: bool) -> Reserve:
        """Return what is asked of the ledger for a call to `target`; the caps of the market come to it there."""
        message, listing, intent = self.message, self.candidates.listings[target.name], self._intent(target)
        is_repeatable = self.held is not None and intent == "again"
        return Reserve(
            key=self.key,
            provider=target.name,
            amount=target.to_reserve(quote),
            at_least=None if quote.tokens is None else quote.tokens.upper,
            accounts=() if message.account is None else (message.account,),
            budget=message.budget,
            spent=micros_of(self.cost) if self.cost else ZERO,
            intent=intent,
            wait=wait,
            holder=holder,
            # That a repeatable call may be charged again is declared, and puts nothing more at risk.
            passes_over=() if is_repeatable else tuple(self.passed_over),
            risk=None if is_repeatable else self.risk,
            must_hold=listing.on_unknown == "hold",
            held_for=listing.held_for,
            fingerprint=None if self.purchase is None else self.purchase.fingerprint,
            if_killed=None if message.stream is None else target.cost_if_killed(quote),
        )

    def _intent(self, target: Target) -> Intent:
        if self.held is None:
            return "again" if self.may_pay_again or self.under_way else "first"
        if self.repeats(target):
            return "repeat"
        # A provider whose calls are repeatable may be called, and paid, again although the outcome is unknown.
        repeatable = target.idempotent == "repeatable"
        return "again" if self.may_pay_again or self.under_way or repeatable else "first"

    def charge(self, reservation: Reservation, charge: Charge, call: HeldCall | None) -> int:
        """Note what a call was charged, and return that in micro-units; a cost of None is what was reserved.

        `call` is the call itself if its outcome is unknown.
        """
        held = self.held
        if charge.charged != "no" and held is not None and held.reservation.number != reservation.number:
            # A repeatable call was made again, and what became of the one before is still not known.
            self.passed_over[held.reservation.number] = PassedOver(held.reservation, held)
        if charge.charged == "held":
            self.held = call
        elif charge.charged == "yes":
            cost = int(reservation.amount if charge.cost is None else charge.cost)
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
                cost = charge_found(held, found).cost
                self.cost += int(held.reservation.amount if cost is None else cost)
                return reply
            case NeverRan():
                return Transient(f"{name!r} never ran the call, or cancelled it", provider=name, outcome="not_started")
            case Lost(cost):
                self.cost += int(held.reservation.amount if cost is None else cost)
                self.may_pay_again = True
                return lost_answer(name)

    def call_to(self, target: Target, quote: Quote, *, timeout: float, left: float | None = None) -> ProviderCall:
        """Return the call to make, which has `timeout` seconds (> 0).

        If it is to stream, that is for its first piece, and the whole has what is `left` of the request's time (None:
        it is only asked about).
        """
        message = self.message
        if message.stream is not None and left is not None:
            self.stream = CallStream(message.stream, first=timeout, config=target.streams)
            timeout = left
        if quote.tokens is not None:
            self.sent[target.name] = quote
        return ProviderCall(
            service=message.service,
            input=message.input if quote.tokens is None else quote.tokens.bounded(message.input),
            request_id=self.request_id,
            idempotency_key=self.provider_key,
            max_cost=quote.price,
            timeout=timeout,
            provider=target.name,
            stream=self.stream,
        )

    def result(self, reply: ProviderReply, *, now: float) -> SmartResult:
        """Return the answer to the request."""
        held, cost = self.possible_charges(), micros_of(self.cost)
        return SmartResult(
            output=reply.output,
            provider=self.last,
            cost=cost,
            paid=cost,
            saved=self.saved,
            attempts=self.calls,
            request_id=self.request_id,
            latency=now - self.started,
            failures=tuple(self.attempts),
            at_risk=sum((one.amount for one in held), ZERO) if held else ZERO,
            held=held,
            translated=reply.translated,
        )

    def kept_for(self, reservation: Reservation) -> Micros:
        """Return what is kept for a call because it is not known whether it is charged."""
        is_held = self.held is not None and self.held.reservation.number == reservation.number
        passed = self.passed_over.get(reservation.number)
        return reservation.amount if is_held or (passed is not None and passed.is_open) else ZERO

    def possible_charges(self) -> tuple[PossibleCharge, ...]:
        """Return the calls that may have been charged, for all that is known, the oldest first."""
        if not self.passed_over and self.held is None and self.kept_from_going_on is None:
            return ()
        key = self.asked_key
        charges = [possible_charge(one.reservation, key=key) for one in self.passed_over.values() if one.is_open]
        last = self.kept_from_going_on if self.held is None else self.held.reservation
        if last is not None:
            charges.append(possible_charge(last, key=key))
        return tuple(charges)

    def at_risk(self) -> Micros:
        """Return how much a request that failed leaves to be paid twice.

        The call that was held last is at risk only if another was charged since.
        """
        charges = self.possible_charges()
        if self.held is not None or self.kept_from_going_on is not None or self.cost == self.cost_before:
            charges = charges[:-1]
        return sum((one.amount for one in charges), ZERO)

    def with_charges(self, failure: CallFailed) -> CallFailed:
        """Return the error of a request that says what was charged for it, and what may have been.

        Something may have been, by a call that was passed over, whatever the last call says of itself. Then the error
        is a copy: a transport may raise one error for many calls.
        """
        if self.served is not None:
            return self.served.with_charges(failure)
        held = self.possible_charges()
        if held and failure.charged == "no":
            failure = copy.copy(failure)
            failure.charged = "held"
        failure.key, failure.held, failure.at_risk = self.asked_key, held, self.at_risk()
        failure.spent, failure.calls = (ZERO, 0) if failure.replayed else (micros_of(self.cost), self.calls)
        return failure

    def failure(self, because: CallFailed | None = None) -> CallFailed:
        """Return the error of a request that has to end, `because` of a refusal or for want of another choice."""
        because_of_all = () if because is None else (because,)
        names, full = self.full
        for name in (one for one in names[:full] if one not in self.tried):
            self.refused.setdefault(name, Full(name, self.candidates.targets[name].state.limit.max_concurrency))
        refusals = (one if isinstance(one, NotAdmitted) else one.refusal for one in self.refused.values())
        refused = (*refusals, *because_of_all)
        may_be_paid = because.at_provider if isinstance(because, RiskExceeded) else self.held_at
        if may_be_paid is not None:
            last = self.attempts[-1] if self.attempts else None
            why = because or (last.error if last is not None else "it was refused")
            if because is None and self.chance is not None:
                why = f"the item fails wherever others are answered, and is not tried again; {why}"
            if because is None and may_be_paid in self.looks:
                why = f"it was still at work on the call, so ask again later under the same key; {why}"
            return OutcomeUnknown(
                f"{may_be_paid!r} may have been paid, and it could not be found out: {why}",
                provider=may_be_paid,
                said=because.said if because is not None else last.said if last is not None else "",
            )
        if self.chance is not None:
            unknown = bool(self.passed_over)
            return PoisonItem(self.message.service, attempts=self.attempts, chance=self.chance, left_unknown=unknown)
        fits_nowhere = bool(self.too_small) and self.too_small.keys() == self.candidates.listings.keys()
        if self.attempts or (fits_nowhere and because is None):
            return self._all_failed(refused, fits_nowhere=fits_nowhere)
        if because is not None:
            return because
        if any(isinstance(refusal, LeftAlone) for refusal in refused):
            # Which of them is to be corrected first, is for the caller to say.
            return AllProvidersFailed(self.message.service, attempts=(), refused=refused)
        if refused:
            return refused[0]
        return DeadlineTooShort(needed=0.0, left=0.0)

    def _all_failed(self, refused: Sequence[CallFailed], *, fits_nowhere: bool) -> AllProvidersFailed:
        service, left_unknown = self.message.service, bool(self.passed_over)
        if not fits_nowhere:
            return AllProvidersFailed(service, attempts=self.attempts, refused=refused, left_unknown=left_unknown)
        window = largest(self.candidates.listings.values())
        return InputTooLong(service, attempts=self.attempts, refused=refused, largest=window, left_unknown=left_unknown)

    def __repr__(self) -> str:
        return f"<Job {self.request_id} {self.calls} calls, {len(self.refused)} refusals, until {self.deadline:.3f}>"
