"""One provider under supervision: its state and breaker, its gateway, and its record.

A provider whose breaker opens is isolated: its gateway is stopped. When its wait is over, a fresh one is started for
exactly one probe.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec

from actors.errors.error_tree import text_of
from actors.errors.exceptions import classify
from actors.errors.families import CallFailed, NotAdmitted, Unclassified
from actors.events import BreakerClosed, BreakerOpened, DearAnswer, HealthChecked, ProviderBack, ProviderLeft
from actors.limits.concurrency import INITIAL_LIMIT, ConcurrencyLimit
from actors.limits.learned import LearnedLimit
from actors.limits.quota import NO_WEIGHTS
from actors.money import micros_of
from actors.policies.breaker.states import BreakerState, Closed, HalfOpen, Isolated, Open
from actors.policies.breaker.transitions import after_success, isolate, release, sooner
from actors.provider_gateway.gateway import ProviderGateway
from actors.provider_gateway.messages import (
    TRANSPORT_GRACE,
    Call,
    CancelCall,
    CheckHealth,
    Health,
    InlineCall,
    LookUpCall,
    ResumeCall,
    SentMarker,
)
from actors.provider_gateway.open_transports import OpenTransports
from actors.supervisor.messages import TargetStatus
from actors.supervisor.targets.admission import Admission, Admitted, CallNeeds, Full, Later, admit, queue_of, renewed
from actors.supervisor.targets.dear_answers import after_charge, to_reserve
from actors.supervisor.targets.forecast import admissions
from actors.supervisor.targets.idle_gateways import IdleGateways
from actors.supervisor.targets.item_history import ItemHistory
from actors.supervisor.targets.probe_check import ProbeCheck
from actors.supervisor.targets.quote import FOR_ANY_COST, Quote, learn_usage, quote_of
from actors.supervisor.targets.reasons import by_money, waits_of
from actors.supervisor.targets.refusals import Refusals
from actors.supervisor.targets.same_transport import makes_same
from actors.supervisor.targets.settlement import EndedCall, given_back, settle
from actors.supervisor.targets.state import TargetState
from actors.supervisor.targets.stragglers import Stragglers
from actors.supervisor.targets.stream_figures import StreamFigures
from actors.tariffs.learned import CallHistory
from actors.transports.pricing import PricesCalls
from actors.transports.reconciliation import Cancels, LooksUp, Resumes
from actors.transports.threaded_calls import ThreadedCalls
from runtime import ActorCrashed, ActorStopped, AskTimeout, Restart, RuntimeFault

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from actors.limits.waiting import Waiting
    from actors.market.listing import Listing
    from actors.market.market import Market
    from actors.model_calls.presets import OnCut
    from actors.money import Micros
    from actors.policies.breaker.states import Permit
    from actors.supervisor.targets.quote import InputDemand, TokenQuote
    from actors.supervisor.targets.waiting import QueueName, WaitQueues
    from actors.transports.called_model import CalledModel
    from actors.transports.reconciliation import Finding
    from actors.transports.streaming import StreamConfig
    from actors.transports.transport import Idempotent, ProviderCall, ProviderReply, Transport
    from runtime import ActorRef, Context, Event, Request


RECONCILE_TIMEOUT = 5.0
"""Seconds that a transport has to find out what became of a call."""
SHORTEST_LOOK = 0.001
"""Seconds that the answer to a call that is taken up is waited for at least."""

GatewayRef: TypeAlias = "ActorRef[Any]"
R = TypeVar("R")


class TargetDeps:
    """What every target of one supervisor needs: the policies, the supervisor's context, and the wait queues."""

    def __init__(self, market: Market, context: Context, queues: WaitQueues) -> None:
        self.market = market
        self.context = context
        self.random = context.random
        self.queues = queues
        self.idle = IdleGateways(context)
        self.coming_back: dict[str, Target] = {}
        """The targets whose breaker was closed by a probe, and that may be in slow start still, by name."""
        self.open_transports = OpenTransports()
        self.gateways_started = 0


class DrainingGateways:
    """The gateways of one target that were handed over to another: each is stopped when its last use has ended."""

    def __init__(self) -> None:
        self.term = 0
        """Counts the gateways that were handed over: a use of the present one begins in this term."""
        self._by_term: dict[int, tuple[GatewayRef, int]] = {}
        """Those that have something to do, and how much."""

    @property
    def uses(self) -> int:
        """The uses of all of them."""
        return sum(uses for _, uses in self._by_term.values())

    def take(self, gateway: GatewayRef, uses: int) -> None:
        """Take a gateway that is in use so many times, and begin the next term."""
        self._by_term[self.term] = (gateway, uses)
        self.term += 1

    def end_use(self, term: int) -> None:
        """Take note that a use has ended which began in a term before."""
        if term in self._by_term:
            gateway, uses = self._by_term[term]
            if uses > 1:
                self._by_term[term] = (gateway, uses - 1)
            else:
                del self._by_term[term]
                gateway.stop()


class Target:
    """One provider under supervision."""

    gateway: GatewayRef | None = None
    """Running while the provider is in use and not isolated, and for a while after."""
    paid: bool = False
    idempotent: Idempotent = "no"
    _pricing: PricesCalls | None = None
    """Its transport, if that can tell what a call needs."""
    on_cut: OnCut | None = None
    """What becomes of a stream when it is cut off, if its transport declares that."""
    _called: CalledModel | None = None
    probe_at: float = 0.0
    """When its last probe began, in loop time."""
    _is_learned_of: bool = False
    """Whether a transport of it has been made."""
    has_check: bool = False
    """Whether its transport declares that a check tells whether calls would be answered."""
    check_failed: bool = False
    """Whether the check before the last probe failed."""
    is_removed: bool = False
    """Whether it is called only by requests that began under a market before, so that none is told of it."""

    def __init__(self, listing: Listing, deps: TargetDeps, *, queue: QueueName | None = None) -> None:
        self.name = listing.provider.name
        self.queue = queue or queue_of(self.name)
        """The wait queue of the requests that wait for it; its own if it took the place of another of its name."""
        self.listing = listing
        self.state = TargetState(
            quota=listing.own_quota(),
            learned=unlearned(listing),
            limit=limit_of(listing),
            retries=deps.market.retry_budget,
        )
        self._when_free: list[Callable[[], None]] = []
        self._uses = 0
        """The calls, checks and look-ups under way at its gateways."""
        self._draining = DrainingGateways()
        self.is_charged_when_cut = True
        """Whether a call that times out may have been charged, by what the last one that did has shown."""
        self.can_look_up = self.can_cancel = False
        """What its transport can do about a call whose outcome is unknown."""
        self.can_resume = False
        """Whether its transport can take up a call by its handle."""
        self.resumes_alone = False
        """Whether it can do so without what the call asked for."""
        self.asked_after: tuple[float, ...] = ()
        """The seconds after its end at which a call is looked up, if that tells its cost alone."""
        self.calls_before = CallHistory()
        """What the calls before have shown of what the next ones will use."""
        self.health: Health | None = None
        self.probe_check = ProbeCheck()
        self.history = ItemHistory()
        """How the latest items ended at it, by which a bad item is told from a bad provider."""
        self.stragglers = Stragglers()
        self.stream_figures = StreamFigures()
        self.is_amplified = False
        """Whether a layer below was seen to send a call more than once."""
        self.hidden_calls = 0
        """The requests that it has sent so, beyond one a call."""
        self.used_at = 0.0
        """When it was last listed anew, or called, in loop time."""
        self.calls = self.failures = self.trips = self.spent = 0
        self.tripped_at: float | None = None
        """When its breaker last opened, in loop time."""
        self._deps = deps
        self._threads = ThreadedCalls(
            listing.max_concurrency, on_late_end=lambda: deps.queues.wake(self.queue) if deps.queues else None
        )
        """They outlive a gateway, as a thread cannot be cut."""
        self._call_type: type[Call] = Call
        """The message by which its gateway is asked for a call."""

    @property
    def can_tell(self) -> bool:
        """Whether its transport may find out what became of a call."""
        return self.can_look_up or self.can_cancel

    @property
    def streams(self) -> StreamConfig:
        """How long its streams wait, unless a request says."""
        return self._deps.market.streams

    # Its state: what an admission takes, and what a settlement gives back.

    def quote(self, listing: Listing, given: InputDemand, *, money: Micros | None = None) -> Quote:
        """Return what a call would cost by its listing, and how many times that it may; at most `money`, if it may."""
        price, tolerance = listing.provider.price, self._tolerance(listing)
        if listing.tariff is None:
            return Quote(price, tolerance, price)
        self._learn()  # Then it is known whether its transport prices calls.
        return quote_of(listing, given, self.calls_before, self._pricing, tolerance=tolerance, money=money)

    def _learn(self) -> None:
        """Have a transport made, if there was none yet, so that it is known what it declares."""
        if not self._is_learned_of and isinstance(self.state.breaker, Closed):
            with suppress(CallFailed, RuntimeFault):
                self.open()

    @property
    def called(self) -> CalledModel | None:
        """Which model its transport calls, if it declares that."""
        self._learn()
        return self._called

    @property
    def quotes_by(self) -> tuple[int, PricesCalls | None]:
        """What a quote depends on besides its listing and the request: as long as it is the same, so is the quote."""
        return self.calls_before.learned, self._pricing

    def _tolerance(self, listing: Listing) -> float:
        return self._deps.market.price_tolerance if listing.price_tolerance is None else listing.price_tolerance

    def to_reserve(self, quote: Quote) -> Micros:
        """Return what to reserve for a call, in micro-units: more than its price after a dear answer."""
        dear = self.state.dear
        return quote.price if dear is None else to_reserve(dear, quote, now=self._deps.context.now())

    def cost_if_killed(self, quote: Quote) -> Micros | None:
        """Return what a stream counts as having cost if the program is killed while it comes; None if that is unknown.

        What came is not known then: a provider that stops has presumably charged no more than a whole answer costs.
        """
        self._learn()
        if self.on_cut is None:
            return None
        is_estimated = self.on_cut == "stops" and quote.tokens is not None
        return min(quote.tokens.estimate, quote.price) if is_estimated and quote.tokens is not None else quote.price

    def admit(self, listing: Listing, needs: CallNeeds, *, now: float) -> Admission:
        """Decide on one call at the terms of `listing`, which may be older than its own; nothing is taken yet."""
        state = self.state
        if state.under_way and (stragglers := self.stragglers.count(state.limit.expected_latency)):
            state = msgspec.structs.replace(state, stragglers=stragglers)
        admission = admit(listing, state, needs, now=now, breaker=self._deps.market.breaker)
        lost = self._threads.given_up
        if lost and isinstance(admission, Admitted) and self.state.under_way + lost >= listing.max_concurrency:
            return Full(self.name, listing.max_concurrency, lost)  # Calls that were given up are at work in the others.
        if isinstance(admission, Later) and self.queue != admission.queue == queue_of(self.name):
            return msgspec.structs.replace(admission, queue=self.queue)
        return admission

    @property
    def is_full(self) -> bool:
        """Whether no request is admitted, whatever it needs, until a call ends."""
        return self.state.under_way >= self.state.limit.max_concurrency

    def when_free(self, call: Callable[[], None]) -> None:
        """Call a function once, when it is no longer full."""
        self._when_free.append(call)

    def _tell_if_free(self) -> None:
        if self._when_free and not self.is_full:
            told, self._when_free = self._when_free, []
            for call in told:
                call()

    def take(self, admitted: Admitted) -> None:
        """Take what an admission decided on, all of it at once."""
        self.state = admitted.state
        if admitted.permit.probe:
            self.probe_at = admitted.permit.admitted
        else:
            self.stragglers.begin(admitted.permit.admitted)
        self.calls += 1
        self.used_at = admitted.permit.admitted

    def renew(self, admitted: Admitted, needs: CallNeeds, *, now: float) -> Admitted | None:
        """Have a call for which all was taken begin now; None if it may not be made any more."""
        later = renewed(self.state, admitted, needs, now=now)
        if later is not None and later.permit.probe:
            self.probe_at = now
        elif later is not None:
            self.stragglers.end(admitted.permit.admitted, is_answered=False)
            self.stragglers.begin(now)
        return later

    def give_back(self, admitted: Admitted, before: TargetState, needs: CallNeeds, *, now: float) -> None:
        """Give back what an admission took of the state `before` for a call that is not made."""
        if not admitted.permit.probe:
            self.stragglers.end(admitted.permit.admitted, is_answered=False)
        if self.state is admitted.state:
            self.state = before
        else:
            self.state = given_back(self.state, admitted, needs, now=now)
        self.calls -= 1
        self._tell_if_free()

    def settle(self, admitted: Admitted, ended: EndedCall) -> None:
        """Give back what a call took, move the breaker, and let the requests that wait for it look again."""
        deps, before = self._deps, self.state
        if not admitted.permit.probe:
            self.stragglers.end(admitted.permit.admitted, is_answered=ended.reply is not None)
        random = deps.random.random()
        if ended.quote.tokens is not None or not ended.quote.is_of(self.listing):
            ended = self._learned_from(ended)
        learns = self.listing.learning
        after = settle(before, admitted, ended, breaker=deps.market.breaker, random=random, learns=learns)
        opened = after.breaker
        if isinstance(opened, Open) and opened is not before.breaker and deps.queues.has_waiters(self.queue):
            is_probe = admitted.permit.probe
            opened = sooner(opened, now=ended.now, config=deps.market.breaker, is_after_probe=is_probe)
        if type(opened) is type(before.breaker):
            self.state = after
        else:
            self.state = msgspec.structs.replace(after, breaker=before.breaker)
            self.become(opened, is_trip=not ended.is_failed_check)
        self._tell_if_free()
        if after.refusals is not before.refusals or after.dear is not before.dear:
            self._tell_leaves(before)
        if not deps.queues:
            return
        is_gated = after.learned.gated_until > ended.now >= before.learned.gated_until
        if is_gated or after.refusals is not before.refusals or after.dear is not before.dear:
            deps.queues.wake_all(self.queue)
        deps.queues.wake(self.queue)
        if before.learned.held_until > ended.now > after.learned.held_until:
            # A 429 before was a stray one, and each place that became free meanwhile has its request.
            for _ in range(before.learned.suspicion.streak):
                deps.queues.wake(self.queue)

    def _learned_from(self, ended: EndedCall) -> EndedCall:
        """Learn what tokens a call has used, and return its end by the price that is listed now."""
        if ended.quote.tokens is not None:
            learn_usage(self.calls_before, ended.quote.tokens, ended.reply)
        if ended.quote.is_of(self.listing):
            return ended
        # It was made at an older price, and tells nothing of the one that is listed now.
        return msgspec.structs.replace(ended, quote=FOR_ANY_COST)

    def learn_cost(self, call: ProviderCall, cost: Micros | None, tokens: TokenQuote | None = None) -> None:
        """Take note of what a call cost, of which that was found out only after its end."""
        context, before = self._deps.context, self.state
        listed = call.max_cost if tokens is None else self.listing.provider.price
        quote = Quote(call.max_cost, self._tolerance(self.listing), listed, tokens)
        now, random = context.now(), context.random.random()
        judged = quote if quote.is_of(self.listing) else FOR_ANY_COST
        dear = after_charge(before.dear, judged, cost, started=-math.inf, now=now, random=random)
        if dear is not before.dear:
            self.state = msgspec.structs.replace(before, dear=dear)
            self._tell_leaves(before)
        if cost is not None and cost > quote.price:
            self.flag(quote, cost, request_id=call.request_id)

    def flag(self, quote: Quote, cost: Micros, *, request_id: str) -> None:
        """Publish a charge above its price."""
        self._deps.context.events.publish(
            DearAnswer(request_id=request_id, provider=self.name, listed=quote.price, charged=cost)
        )

    def become(self, breaker: BreakerState, *, is_trip: bool = True) -> None:
        """Take on the next state of the breaker, and start or stop what goes with it.

        It is no trip if no call was made, because a check before it failed.
        """
        before = self.state.breaker
        self.state = msgspec.structs.replace(self.state, breaker=breaker)
        if type(breaker) is type(before):
            return
        queues, now = self._deps.queues, self._deps.context.now()
        if isinstance(before, Closed):
            self.tripped_at = now
            self.probe_check = self.probe_check.after_trip()
        if isinstance(breaker, Closed):
            if breaker.since is not None and not self.is_removed:
                self._deps.coming_back[self.name] = self
            self._publish(BreakerClosed(provider=self.name))
            queues.wake(self.queue)
        elif not isinstance(breaker, HalfOpen):
            # The gateway finishes the calls under way; their results no longer move the breaker.
            self.close()
            wait = breaker.until - now if isinstance(breaker, Open) else math.inf
            if wait <= 0:
                return  # A probe that was cancelled proved nothing, and is no trip.
            if is_trip:
                self.trips += isinstance(breaker, Open)
                self._publish(BreakerOpened(provider=self.name, wait=wait))
            queues.wake_all(self.queue)

    def _publish(self, event: Event) -> None:
        """Publish what is news of the provider of this name, which is another one if this was removed."""
        if not self.is_removed:
            self._deps.context.events.publish(event)

    def isolate(self) -> None:
        """Call it no more until it is released by hand."""
        self.become(isolate(self.state.breaker))

    def isolate_quietly(self) -> None:
        """Keep a target isolated that is made anew, as after a restart: that is no news."""
        self.state = msgspec.structs.replace(self.state, breaker=isolate(self.state.breaker))

    def release(self) -> None:
        """Let it be called again, and forget why it was not: the operator knows better."""
        before = self.state
        dear = None if self.state.dear is None else self.state.dear.released(self._deps.context.now())
        refusals = Refusals(since=self._deps.context.now())
        learned = unlearned(self.listing)
        self.state = msgspec.structs.replace(self.state, learned=learned, refusals=refusals, dear=dear, probe_cut=0.0)
        self._tell_leaves(before)
        self.become(release(self.state.breaker))
        self._deps.queues.wake_all(self.queue)

    def _tell_leaves(self, before: TargetState) -> None:
        """Publish what the provider is left alone for, from now or for longer, and what no more."""
        after, now = self.state, self._deps.context.now()
        was = {one.what: one.leave for one in before.left_for()}
        for one in after.left_for():
            last, leave = was.pop(one.what, None), one.leave
            if leave is not None and (last is None or last.until < leave.until):
                wait = leave.until - now
                cause = str(one.error(self.name, wait))
                self._publish(
                    ProviderLeft(provider=self.name, concerns=one.concerns, what=one.what, cause=cause, wait=wait)
                )
        for what in was:
            self._publish(ProviderBack(provider=self.name, what=what))

    def note_hidden_calls(self, count: int) -> None:
        """Count the requests that a layer below has sent by itself for one call; the first are told in the log."""
        self.hidden_calls += count
        if not self.is_amplified:
            self.is_amplified = True
            self._deps.context.log.warning(
                "provider {}: its client sent {} requests for one call; switch its own retries and redirects off",
                self.name,
                count + 1,
            )

    def forget(self) -> None:
        """Let go of it: there is nothing left that would call it again."""
        events, before = self._deps.context.events, self.state
        self.close()
        self.state = TargetState()
        self._tell_if_free()
        self._tell_leaves(before)
        if not isinstance(before.breaker, Closed):
            events.publish(BreakerClosed(provider=self.name))

    def remove(self) -> None:
        """Be called no more but by requests that found it before, and close its gateway after each of their calls."""
        events, state = self._deps.context.events, self.state
        for one in state.left_for():
            events.publish(ProviderBack(provider=self.name, what=one.what))
        if not isinstance(state.breaker, Closed):
            events.publish(BreakerClosed(provider=self.name))
        self.is_removed = True
        if self._deps.coming_back.get(self.name) is self:
            del self._deps.coming_back[self.name]
        self._hand_over()

    def go_by(self, listing: Listing, before: Market) -> None:
        """Take on what another market says of it, in the place of the market `before`."""
        market, state = self._deps.market, self.state
        if market.retry_budget != before.retry_budget:
            tokens = min(state.retries.tokens, market.retry_budget.max_tokens)
            retries = msgspec.structs.replace(market.retry_budget, tokens=tokens, updated=state.retries.updated)
            self.state = msgspec.structs.replace(state, retries=retries)
        if market.classify is not before.classify:
            self._hand_over()
        self.relist(listing)

    def relist(self, listing: Listing) -> None:
        """Take on what the registry says now; a quota that stays as it was goes on as it is."""
        before, self.listing = self.listing, listing
        if not makes_same(listing.transport, before.transport):
            # It may have another key: what was refused is asked for anew, through another gateway.
            self.is_amplified = False
            self._hand_over()
            state = self.state
            self.state = msgspec.structs.replace(state, refusals=Refusals(since=self._deps.context.now()))
            self._tell_leaves(state)
        if listing.provider.price != before.provider.price or listing.tariff != before.tariff:
            state = self.state
            self.state = msgspec.structs.replace(state, dear=None)
            self._tell_leaves(state)
        if listing.max_concurrency != before.max_concurrency:
            self._hand_over()  # It would go on to count by the old number.
            limit = self.state.limit
            most = float(listing.max_concurrency)
            # Above the bound of before, nothing was learned.
            learned = limit.limit if limit.limit < before.max_concurrency else max(limit.limit, INITIAL_LIMIT)
            limit = msgspec.structs.replace(
                limit,
                max_concurrency=listing.max_concurrency,
                limit=min(learned, most),
                declared=listing.provider.response_time,
                trial=None,
            )
            self.state = msgspec.structs.replace(self.state, limit=limit)
            self._tell_if_free()
        if listing.all_limits() != before.all_limits() or listing.headroom != before.headroom:
            learned = msgspec.structs.replace(self.state.learned, stated=listing.stated_rate())
            quota = listing.own_quota(after=self.state.quota, now=self._deps.context.now())
            self.state = msgspec.structs.replace(self.state, quota=quota, learned=learned)
        if not listing.learning and before.learning:
            self.state = msgspec.structs.replace(self.state, learned=unlearned(listing))
        self._deps.queues.wake(self.queue)

    def timeout(self, listing: Listing) -> float:
        """Return the seconds to give one attempt: what was configured, or less if a repetition costs nothing."""
        answers = self.state.answers
        if answers.samples < answers.min_samples or (self.idempotent == "no" and not self.may_cut(listing)):
            return listing.timeout
        return answers.seconds(configured=listing.timeout)

    def may_cut(self, listing: Listing) -> bool:
        """Tell whether a call may end before its configured timeout.

        Otherwise one that is cut off early may have been paid all the same, and its outcome would be unknown.
        """
        return self.idempotent != "no" or not (self.paid or listing.may_cost)

    # Its gateway: opened when needed, closed when the breaker opens.

    def open(self) -> GatewayRef:
        """Return the running gateway, and start one if there is none.

        Raises `Unclassified` if its transport cannot be made.
        """
        if self.gateway is None:
            self.gateway = self._start_gateway()
            if not self._uses:
                self._deps.idle.add(self)
        return self.gateway

    def _begin_use(self) -> int:
        """Keep its gateway open; return the term that `_end_use` is told."""
        self._uses += 1
        if self._uses == 1:
            self._deps.idle.discard(self)
        return self._draining.term

    def _end_use(self, term: int) -> None:
        self._uses -= 1
        if term != self._draining.term:
            self._draining.end_use(term)
        if not self._uses and self.gateway is not None:
            if self.is_removed:
                self.close()
            else:
                self._deps.idle.add(self)

    def _hand_over(self) -> None:
        """Have the next call open another gateway; this one is stopped when what is under way there has ended.

        A gateway that is told to stop cuts a stream that takes long.
        """
        gateway, uses = self.gateway, self._uses - self._draining.uses
        if gateway is None or not uses:
            self.close()
        else:
            self._draining.take(gateway, uses)
            self.gateway = None

    @contextmanager
    def _in_use(self) -> Generator[None]:
        """Keep the gateway open for a question that is asked of it."""
        term = self._begin_use()
        try:
            yield
        finally:
            self._end_use(term)

    def _start_gateway(self) -> GatewayRef:
        listing, deps = self.listing, self._deps

        def make() -> ProviderGateway:
            self._threads.resize(listing.max_concurrency)
            gateway = ProviderGateway(
                listing,
                classify=deps.market.classify,
                threads=self._threads,
                open_transports=deps.open_transports,
            )
            self.learn_of(gateway.transport)
            return gateway

        deps.gateways_started += 1
        try:
            return deps.context.spawn(
                make,
                name=f"gateway-{deps.gateways_started}-{self.name.replace('/', '-')}",
                # Never restarted by the engine: when it may run again is for the breaker to decide.
                restart=Restart.TEMPORARY,
                stop_timeout=listing.timeout + TRANSPORT_GRACE,
            )
        except RuntimeFault:
            raise
        except Exception as error:
            # A transport is the user's code: one that fails must not take the other providers along.
            what = f"no transport to {self.name!r} could be made: {text_of(error)}"
            raise Unclassified(what, provider=self.name, outcome="not_started") from error

    def learn_of(self, transport: Transport) -> None:
        """Take note of what a transport declares of itself."""
        self.paid, self.idempotent = transport.paid, transport.idempotent
        self._call_type = InlineCall if getattr(transport, "ends_when_cancelled", False) else Call
        self.has_check = getattr(transport, "has_check", False) is True
        self.can_look_up = isinstance(transport, LooksUp)
        self.asked_after = getattr(transport, "asked_after", ())
        self.can_cancel = isinstance(transport, Cancels)
        self.on_cut = getattr(transport, "on_cut", None)
        self.can_resume = isinstance(transport, Resumes)
        self.resumes_alone = self.can_resume and getattr(transport, "resumes_alone", False) is True
        self._called = getattr(transport, "called", None)
        self._pricing = transport if isinstance(transport, PricesCalls) else None
        self._is_learned_of = True

    def close(self) -> None:
        """Stop the gateway, if it runs; it finishes the calls under way."""
        if self.gateway is not None:
            self.gateway.stop()
            self.gateway = None
            self._deps.idle.discard(self)

    async def call(self, call: ProviderCall, marker: SentMarker) -> ProviderReply:
        """Make one call; raises members of `CallFailed` only. `marker` tells afterwards whether it was sent."""
        term = self._begin_use()
        try:
            if self.gateway is None:
                self.open()  # Which kind of question it takes is known once its transport is made.
            timeout = call.timeout if call.notes.longest is None else call.notes.longest
            return await self._ask_gateway(self._call_type(call, marker), timeout + TRANSPORT_GRACE)
        except asyncio.CancelledError:
            if call.stream is not None and marker.is_sent:
                # What a stream that is cut off owes is known once its transport has ended it.
                await call.stream.until_ended(within=TRANSPORT_GRACE)
            raise
        except (AskTimeout, ActorCrashed) as fault:
            cause: Exception = fault
            if isinstance(fault, ActorCrashed):
                cause = ConnectionResetError(str(fault))
            raise classify(
                cause,
                provider=self.name,
                sent=marker.is_sent,
                paid=self.paid or call.max_cost > 0,
                idempotent=self.idempotent != "no",
            ) from fault
        except RuntimeFault as fault:
            raise NotAdmitted(f"{self.name!r}: {fault}", provider=self.name) from fault
        finally:
            self._end_use(term)

    async def look_up(self, call: ProviderCall) -> Finding:
        """Find out what became of a call; raises members of `CallFailed` and of `RuntimeFault` if that fails."""
        return await self._ask(LookUpCall(call, RECONCILE_TIMEOUT))

    async def cancel(self, call: ProviderCall) -> Finding:
        """Cancel a call, and return what became of it; raises as `look_up` does."""
        return await self._ask(CancelCall(call, RECONCILE_TIMEOUT))

    async def resume(self, handle: str, call: ProviderCall, *, wait: float) -> Finding:
        """Take up a call by its handle, and wait for its answer for so many seconds; raises as `look_up` does."""
        taken_up = msgspec.structs.replace(call, timeout=max(wait, SHORTEST_LOOK))
        return await self._ask(ResumeCall(handle, taken_up, taken_up.timeout + RECONCILE_TIMEOUT))

    async def _ask(self, question: LookUpCall | CancelCall | ResumeCall) -> Finding:
        with self._in_use():
            try:
                return await self._ask_gateway(question, question.timeout + TRANSPORT_GRACE)
            finally:
                self._close_if_isolated()

    def _close_if_isolated(self) -> None:
        """Stop a gateway that was opened for a question alone: the probe gets a fresh one."""
        if isinstance(self.state.breaker, Open | Isolated):
            self.close()

    async def _ask_gateway(self, question: Request[R], timeout: float) -> R:  # noqa: ASYNC109 - see `ask`.
        """Ask the gateway; another one if it was ended from outside before it had the question."""
        gateway = self.gateway or self.open()
        try:
            try:
                return await gateway.ask(question, timeout=timeout)
            except ActorStopped:
                if self.gateway is not gateway:
                    raise  # It was closed by its breaker, or for other terms.
                self.gateway = None
                gateway = self.open()
                return await gateway.ask(question, timeout=timeout)
        except AskTimeout:
            raise
        except RuntimeFault:
            if self.gateway is gateway:
                self.gateway = None  # The next call starts another one.
            raise

    # Its health.

    def has_fresh_health(self, *, max_age: float, now: float) -> bool:
        """Tell whether its last check is less than `max_age` seconds old."""
        return self.health is not None and now - self.health.checked_at < max_age

    async def check(self, *, max_age: float, within: float = math.inf) -> Health:
        """Return its health, less than `max_age` seconds old; a provider that does not answer is unhealthy."""
        context = self._deps.context
        started = context.now()
        if not self.has_fresh_health(max_age=max_age, now=started):
            self.health = await self._check_now(max_age, within=min(self._deps.market.health.timeout, within))
            context.events.publish(HealthChecked(provider=self.name, problem=self.health.problem))
        return self.health or Health(started)

    async def _check_now(self, max_age: float, *, within: float) -> Health:
        started = self._deps.context.now()
        with self._in_use():
            try:
                question = CheckHealth(max_age=max_age, timeout=within)
                return await self._ask_gateway(question, within + 2 * TRANSPORT_GRACE)
            except (RuntimeFault, Unclassified) as error:
                return Health(started, problem=str(error))
            finally:
                self._close_if_isolated()

    async def is_worth_a_probe(self, *, within: float, is_costly: bool) -> bool:
        """Check a provider that is due for its probe, for `within` seconds at most; tell whether to make it.

        A probe `is_costly` if it would be unknown what it costs when it is cut.
        """
        self.check_failed = (await self.check(max_age=0.0, within=within)).is_unwell
        if not (self.check_failed and self.probe_check.believes(is_costly=is_costly)):
            return True
        self.probe_check = self.probe_check.after_spared()
        return False

    def vouches(self, permit: Permit) -> bool:
        """Tell whether its check, which was made for a probe with this permit, closes the breaker instead of it."""
        slow, now = self._deps.market.breaker.slow_call, self._deps.context.now()
        is_in_time = slow is None or now - permit.admitted < slow
        is_well = self.health is not None and self.health.is_healthy
        return self.has_check and is_well and is_in_time and not self.probe_check.misled

    def close_by_check(self, permit: Permit) -> None:
        """Close the breaker because the check was passed; the probe with this permit was not made."""
        now, config = self._deps.context.now(), self._deps.market.breaker
        self.probe_check = self.probe_check.after_vouching()
        self.become(after_success(self.state.breaker, permit, now=now, config=config, random=0.0))

    def probed(self, *, is_answered: bool) -> None:
        """Take note of how a probe ended."""
        self.probe_check = self.probe_check.after_probe(check_failed=self.check_failed, is_answered=is_answered)

    # What others see of it.

    def status(self, *, short: tuple[float, int] | None = None) -> TargetStatus:
        """Return the facts for a person; `short` says since when requests wait for money to pay it, and how many."""
        now, dear, price = self._deps.context.now(), self.state.dear, self.listing.provider.price
        # A wait that is over ends only with a call that finds out.
        left = tuple(str(one.error(self.name, one.wait(now) or math.inf)) for one in self.state.left_for())
        return TargetStatus(
            provider=self.listing.provider,
            breaker=name_of_state(self.state.breaker),
            under_way=self.state.under_way,
            calls=self.calls,
            failures=self.failures,
            trips=self.trips,
            spent=micros_of(self.spent),
            healthy=None if self.health is None else self.health.is_healthy,
            problem=None if self.health is None else self.health.problem,
            left=left,
            dearest=None if dear is None or dear.price != price else dear.dearest(now),
            waiting=(*self.waits(now), *(() if short is None else (by_money(*short),))),
            now=now,
            queued=self._deps.queues.waiting_in(self.queue),
            hidden_calls=self.hidden_calls,
            first_piece=self.stream_figures.first_piece,
            piece_interval=self.stream_figures.piece_interval,
        )

    def waits(self, now: float) -> Iterator[Waiting]:
        """Yield why requests wait for it at `now`, money excepted."""
        breaker = self._deps.market.breaker
        return waits_of(
            self.name, self.state, now=now, breaker=breaker, tripped_at=self.tripped_at, probe_at=self.probe_at
        )

    def admissions(self, now: float, weights: Mapping[str, int] = NO_WEIGHTS) -> Iterator[float]:
        """Yield when it will presumably let the next calls of these weights begin, in loop time."""
        breaker, begun = self._deps.market.breaker, self.stragglers.begun()
        return admissions(self.state, now=now, breaker=breaker, begun=begun, probe_at=self.probe_at, weights=weights)

    def broken_invariants(self) -> Iterator[str]:
        """Name what does not hold although no call is under way."""
        state = self.state
        if state.under_way:
            yield f"{state.under_way} calls to {self.name!r} never gave their place back"
        if any(leave.is_tried for leave in state.leaves()):
            yield f"{self.name!r} was left alone as if a call were under way that finds out"
        if isinstance(state.breaker, HalfOpen):
            yield f"the breaker of {self.name!r} was left half-open, without a probe"
        if not 0 <= state.retries.tokens <= state.retries.max_tokens:
            yield f"{self.name!r} has {state.retries.tokens} retry tokens, of at most {state.retries.max_tokens}"
        for bucket in () if state.quota is None else state.quota.buckets:
            yield from bucket.broken_invariants(f"the quota of {self.name!r}")

    def __repr__(self) -> str:
        return f"<Target {self.name!r} {name_of_state(self.state.breaker)}, {self.state.under_way} calls under way>"


def unlearned(listing: Listing) -> LearnedLimit:
    """Return what is known of the limits of a provider of which only its listing is known."""
    return LearnedLimit(stated=listing.stated_rate())


def limit_of(listing: Listing) -> ConcurrencyLimit:
    """Return the concurrency limit of a provider of which only its listing is known."""
    return ConcurrencyLimit(listing.max_concurrency, declared=listing.provider.response_time)


def name_of_state(state: BreakerState) -> str:
    """Name a breaker's state as people do."""
    match state:
        case Closed():
            return "closed"
        case Open():
            return "open"
        case HalfOpen():
            return "half-open"
        case Isolated():
            return "isolated"
