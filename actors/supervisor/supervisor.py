"""Answers requests by a provider that can: the fixed pipeline, with breaker and fallback as supervision."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from actors.discovery.discovery import Discovery, registry_of
from actors.discovery.messages import ChangeRegistry, Discover
from actors.errors.families import CallFailed, LedgerDown, Permanent, Unclassified
from actors.events import RequestEnded
from actors.ledger.book import Book
from actors.ledger.keys import own_id
from actors.ledger.ledger import HolderRestarted, Ledger
from actors.ledger.messages import (
    AnswerQuestion,
    CloseAccount,
    ForgetAnswer,
    GetHeld,
    GetStatement,
    OpenAccount,
    Resolve,
    SetCap,
    Unsettled,
)
from actors.market.market import Market
from actors.money import ZERO, micros_of
from actors.policies.even_draws import EvenDraws
from actors.providers.bandit import ScoreAnswer
from actors.rate_limiter.messages import SetLimits
from actors.rate_limiter.rate_limiter import RateLimiter
from actors.supervisor.messages import (
    GetLedger,
    GetRequests,
    GetStatus,
    Isolate,
    MarketChange,
    OpenQuota,
    Release,
    ReplaceMarket,
    RequestsUnderWay,
    SmartRequest,
    SmartResult,
    TargetStatus,
)
from actors.supervisor.payments.payments import Payments
from actors.supervisor.pipeline.deps import Deps
from actors.supervisor.pipeline.finding import Finder
from actors.supervisor.pipeline.former_market import FormerMarket
from actors.supervisor.pipeline.hedge_budget import HedgeBudget
from actors.supervisor.pipeline.item_trial import end_trial
from actors.supervisor.pipeline.job import Job, risk_of
from actors.supervisor.pipeline.joining import KeyedCalls
from actors.supervisor.pipeline.keyed import serve_keyed, serve_to_the_end
from actors.supervisor.pipeline.pipeline import serve
from actors.supervisor.pipeline.request_lines import RequestLines
from actors.supervisor.pipeline.scores import Scores
from actors.supervisor.pipeline.tracing import end_request
from actors.supervisor.pipeline.under_way import look_at
from actors.supervisor.pipeline.warmth import PrefixLog
from actors.supervisor.services import Service, Services
from actors.supervisor.targets.idle_gateways import CloseIdleDue
from actors.supervisor.targets.reasons import told_with_waits
from actors.supervisor.targets.target import TargetDeps
from actors.supervisor.targets.target_table import TargetTable
from actors.supervisor.targets.waiting import WaitQueues
from runtime import Actor, ActorRef, ActorStopped, Key, Mailbox, Message, Request, Terminated, handles

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from actors.discovery.discovery import Registry
    from actors.discovery.offers import Offers
    from actors.ledger.account import Account
    from actors.ledger.entries import MoneyReleased, MoneySettled
    from actors.ledger.statement import Statement
    from actors.rate_limiter.messages import Acquire
    from actors.tracing import Tracing
    from runtime import Timer

MAX_REQUESTS = 1_000_000
"""The requests that can be under way at the same time; how many of them may wait, the market says."""
DISCOVERY_TIMEOUT = 30.0
"""Seconds that discovery has to answer a caller that asks which providers there are."""
LEDGER_MAILBOX = Mailbox(capacity=1_000_000)


SUPERVISORS = Key[Any]("understudy.supervisors")
"""Under which every supervisor of a system is registered, for what shows the providers of all."""


class ReconcileDue(Message, frozen=True):
    """The supervisor reminds itself of calls that may have been paid."""


class TakeUpDue(Message, frozen=True):
    """The supervisor reminds itself of calls of an earlier life that can be taken up by their handles."""


class Supervisor(
    Actor[
        SmartRequest
        | Discover
        | OpenAccount
        | CloseAccount
        | GetStatement
        | GetHeld
        | Resolve
        | ForgetAnswer
        | SetCap
        | AnswerQuestion
        | OpenQuota
        | GetLedger
        | ScoreAnswer
        | Isolate
        | Release
        | GetStatus
        | GetRequests
        | ReplaceMarket
        | ReconcileDue
        | TakeUpDue
        | CloseIdleDue
        | Terminated
    ]
):
    """Serves `SmartRequest`s over the providers of a market.

    Its money is kept by a `Ledger` of its own, which outlives its restarts and ends with it; or by `ledger`, the ref of
    one that outlives it, is shared with others, or has a journal. `registry` tells discovery which providers there are;
    by default they are those of the market.

    A discovery, ledger or limiter of its own that is stopped or killed from outside is replaced: requests under way go
    on with the next one, which takes over its book or quota. More often than `RestartIntensity` allows, and the
    supervisor itself fails.

    Each of the market's quotas is held by a `RateLimiter` of its own too, or by one of `quotas`, the refs by name of
    limiters that several supervisors share. `tracing` records its requests as traces (None: no traces).
    """

    def __init__(
        self,
        market: Market,
        *,
        registry: Registry | None = None,
        ledger: ActorRef[Any] | None = None,
        quotas: Mapping[str, ActorRef[Any]] | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        if not isinstance(market, Market):
            raise TypeError(f"a Supervisor needs a Market, got {market!r:.100}")
        if registry is None and not market.providers:
            raise ValueError("a Supervisor needs a provider: give its market a Listing, or give it a registry=")
        self.market = market
        self.has_own_registry = registry is not None
        self.registry = registry or registry_of(market)
        self.ledger = ledger
        self.tracing = tracing
        if tracing is not None:
            self.take_along = tracing.take_along
        self.shared_quotas = dict(quotas or {})
        self.quotas = self.begun = 0
        self.under_way: dict[Job, None] = {}
        """The requests under way, the oldest first."""
        self.ended: Counter[str] = Counter()
        """How many requests have ended: done, failed or unknown; `begun` counts all."""
        self.queues = WaitQueues(market.max_waiting)
        self.reminder: Timer | None = None
        self.may_have_held = ledger is not None
        """Whether the ledger may know of calls that were made before this instance began."""
        self.has_started = False

    def started(self) -> None:
        context = self.context
        market = self._go_by(context.kept.get("market", self.market))
        self.services = Services(context, self.supervision.intensity)
        self.payments = Payments(self._own_ledger() if self.ledger is None else self.ledger, context, market)
        self.target_deps = TargetDeps(market, context, self.queues)
        self.idle_gateways = self.target_deps.idle
        self.targets = TargetTable(
            self.target_deps,
            isolated=self._isolated,
            needed=self.payments.held_providers,
            on_relisted=self.payments.accounts.relisted,
        )
        self.discovery = self.services.start(
            lambda: Discovery(self.registry, self.market.discovery, watch=self.market.watch), name="discovery"
        )
        self.former_hedges: list[HedgeBudget] = []
        """Those of markets before, by which requests under way may still make second calls."""
        self.deps = Deps(
            market=market,
            context=context,
            events=context.events,
            finder=Finder(self.discovery),
            targets=self.targets,
            queues=self.queues,
            payments=self.payments,
            hedge_budget=HedgeBudget(market.hedge),
            scores=Scores(),
            prefixes=PrefixLog(),
            keyed=KeyedCalls(
                context,
                market.streams,
                leave=self._leave,
                reclass=lambda job, priority: self.queues.reclass(job.entry, priority),
            ),
            backoffs=EvenDraws(context.random.random()),
            limiters={name: self._limiter(name) for name in {**market.quotas, **self.shared_quotas}},
        )
        self.lines = RequestLines(context)
        context.registry.register(SUPERVISORS, context.ref)
        # This comes last: an instance that could not start is not stopped either.
        self.services.keep_mail()
        self.has_started = True
        if self.may_have_held:
            context.ref.tell(TakeUpDue())

    async def stopped(self) -> None:
        self.services.close()
        for one in (*self.former_hedges, self.deps.hedge_budget):
            one.close()
        await self.deps.keyed.close()
        await self.payments.close()

    @property
    def _isolated(self) -> set[str]:
        """The providers that were isolated by hand, also before a restart."""
        isolated: set[str] = self.context.kept.setdefault("isolated", set[str]())
        return isolated

    def _own_ledger(self) -> Service:
        """Start a ledger whose book outlives restarts, of the ledger and of the supervisor."""
        kept, ref = self.context.kept, self.context.ref
        begins_anew = "book" in kept
        book: Book = kept.setdefault("book", Book())
        ledger = self.services.start(lambda: Ledger(book=book), name="ledger", mailbox=LEDGER_MAILBOX)
        if begins_anew:
            self.may_have_held = True
            ledger.tell(HolderRestarted(ref))  # What the instance before left open, it may have paid.
        return ledger

    def _go_by(self, market: Market) -> Market:
        """Take another market as the one to serve by."""
        self.market = market
        if not self.has_own_registry:
            self.registry = registry_of(market)
        self.queues.bound.max_waiting = market.max_waiting
        return market

    def _switch(self, market: Market) -> MarketChange:
        """Serve by another market, from the next request on."""
        before, deps = self.market, self.deps
        if not self.has_own_registry:
            deps.finder.former = FormerMarket(self.registry, self.targets.by_name)
        # A restart goes on with it too.
        self.context.kept["market"] = self.target_deps.market = self._go_by(market)
        self.payments.accounts.go_by(market)
        change = self.targets.switch(before, is_whole=not self.has_own_registry)
        self.discovery.tell(
            ChangeRegistry(registry=self.registry, config=market.discovery, watch=market.watch, forgotten=change.moved)
        )
        hedge_budget = deps.hedge_budget
        if market.hedge != before.hedge:
            self.former_hedges.append(hedge_budget)
            hedge_budget = HedgeBudget(market.hedge)
        for name, quota in market.quotas.items():
            if name not in deps.limiters:
                deps.limiters[name] = self._limiter(name)
            elif name not in self.shared_quotas and quota != before.quotas.get(name):
                deps.limiters[name].tell(SetLimits(limits=quota.all_limits(), headroom=quota.headroom))
        deps.keyed.streams = market.streams
        self.deps = msgspec.structs.replace(
            deps, market=market, finder=Finder(self.discovery), hedge_budget=hedge_budget
        )
        if self.may_have_held and change.added:
            self.context.ref.tell(TakeUpDue())  # Their calls of an earlier life had none to be asked of.
        return change

    def _limiter(self, name: str) -> ActorRef[Any] | Service:
        """Return who holds a quota that providers share; its state outlives restarts, also of the supervisor."""
        shared = self.shared_quotas.get(name)
        if shared is not None:
            return shared
        first = self.market.quotas[name]
        kept: dict[str, Any] = self.context.kept.setdefault(f"quota {name}", {})

        def make() -> RateLimiter:
            quota = self.market.quotas.get(name, first)
            return RateLimiter(name, limits=quota.all_limits(), headroom=quota.headroom, kept=kept)

        return self.services.start(
            make,
            name=f"shared-quota-{quote(name, safe='')}",
            mailbox=LEDGER_MAILBOX,
        )

    @handles(SmartRequest, concurrent=MAX_REQUESTS, inline=True)
    async def serve_request(self, message: SmartRequest) -> SmartResult:
        """Serve one request from discovery to answer."""
        job = self._begin(message)
        self.under_way[job] = None
        error: str | None = "Cancelled"
        detail: str | None = None
        result: SmartResult | None = None
        try:
            if message.idempotency_key is not None:
                result = await serve_keyed(self.deps, job)
            elif message.stream is None or not message.stream.finishes(self.market.streams):
                result = await serve(self.deps, job)
            else:
                result = await serve_to_the_end(self.deps, job)
            error = None
        except CallFailed as failure:
            error, detail = failure.kind, str(failure)
            told = job.with_charges(failure)
            told_with_waits(told, since=(job.served or job).waits_since, now=self.context.now())
            if told is not failure:
                raise told from failure
            raise
        except Exception as bug:
            # A crash would end the requests beside it too, whose calls may be paid.
            error, detail = Unclassified.__name__, f"a bug while it was served: {type(bug).__name__}: {bug}"
            self.context.log.opt(exception=bug).error("request {}: {}", job.request_id, detail)
            served = job.served or job
            charged = "held" if served.held is not None else "yes" if served.cost else "no"
            raise job.with_charges(Unclassified(detail, charged=charged)) from bug
        else:
            return result
        finally:
            del self.under_way[job]
            self._end(job, result, error)
            provider = None if result is None else result.provider
            if self.lines.are_wanted:
                self.lines.write(job, provider=provider, error=error, detail=detail)
            if self.deps.events.wants(RequestEnded):
                latency = self.context.now() - job.started
                self.deps.events.publish(_ended(job, result, latency=latency, error=error, detail=detail))

    @handles(Discover, concurrent=MAX_REQUESTS, inline=True)
    async def discover(self, message: Discover) -> Offers:
        """Tell which providers offer a service, as discovery has them."""
        return await self.deps.finder.ask(message, timeout=DISCOVERY_TIMEOUT)

    @handles(OpenAccount, concurrent=MAX_REQUESTS, inline=True)
    async def open_account(self, message: OpenAccount) -> str:
        """Open an account with the ledger, and return its name."""
        if message.name is not None and self.payments.accounts.is_of_market(message.name):
            raise Permanent(f"account {message.name!r} is of the market, which opens it itself; take another name")
        return await self.payments.ask_ledger(message)

    @handles(CloseAccount, concurrent=MAX_REQUESTS, inline=True)
    async def close_account(self, message: CloseAccount) -> Account:
        """Close an account at once, and answer when the last call that draws on it has ended."""
        if self.payments.accounts.is_of_market(message.name):
            raise Permanent(f"account {message.name!r} is of the market, and stays open; SetCap changes what it allows")
        self.payments.accounts.forget(message.name)
        return await self.payments.ask_ledger(message)

    @handles(GetStatement, concurrent=MAX_REQUESTS, inline=True)
    async def state(self, message: GetStatement) -> Statement:
        """Tell the figures of an account, as the ledger has them."""
        return await self.payments.ask_ledger(message)

    @handles(GetHeld, concurrent=MAX_REQUESTS, inline=True)
    async def list_held(self, message: GetHeld) -> tuple[Unsettled, ...]:
        """Tell which calls may have been paid, as the ledger has them."""
        return await self.payments.ask_ledger(message)

    @handles(Resolve, concurrent=MAX_REQUESTS, inline=True)
    async def resolve(self, message: Resolve) -> MoneySettled | MoneyReleased:
        """Have the ledger enter what was found out of a call whose money is held."""
        return await self.payments.ask_ledger(message)

    @handles(ForgetAnswer)
    def forget_answer(self, message: ForgetAnswer) -> None:
        """Have the ledger let go of an answer."""
        self.payments.forget_answer(message)

    @handles(SetCap, concurrent=MAX_REQUESTS, inline=True)
    async def set_cap(self, message: SetCap) -> Statement:
        """Have the ledger change a cap."""
        return await self.payments.ask_ledger(message)

    @handles(AnswerQuestion, concurrent=MAX_REQUESTS, inline=True)
    async def answer_question(self, message: AnswerQuestion) -> Statement:
        """Have the ledger enter the answer to a question that an account at its cap has asked."""
        return await self.payments.ask_ledger(message)

    @handles(ReplaceMarket, concurrent=MAX_REQUESTS, inline=True)
    async def replace_market(self, message: ReplaceMarket) -> MarketChange:
        """Switch to another market between two requests, and have the ledger change its caps.

        Once it has switched it stays so, and `LedgerDown` says that a cap is told only before it is next drawn on.
        """
        if not (message.market.providers or self.has_own_registry):
            raise Permanent("a market without providers serves no request; give it a Listing. Nothing was changed")
        change = self._switch(message.market)
        try:
            await self.payments.tell_caps()
        except CallFailed as error:
            why = f"the market is replaced, and its caps are told before they are drawn on ({error})"
            self.context.log.warning("{}", why)
            raise LedgerDown(why) from error
        return change

    @handles(GetLedger)
    def tell_ledger(self, message: GetLedger) -> ActorRef[Any]:
        """Tell which ledger it was given."""
        if self.ledger is None:
            raise Permanent(
                "this supervisor has a ledger of its own, without a journal; give it one that has: "
                'Supervisor(market, ledger=system.spawn(lambda: Ledger(journal="run.journal")))'
            )
        return self.ledger

    @handles(ReconcileDue, concurrent=2)
    async def reconcile(self, message: ReconcileDue) -> None:
        """Find out about the calls that are due, and be reminded of the others."""
        is_mine = True
        try:
            is_mine = await self.payments.reconciler.reconcile_due()
        finally:
            if is_mine:
                self._be_reminded()

    @handles(TakeUpDue, concurrent=2)
    async def take_up(self, message: TakeUpDue) -> None:
        """Take up the held calls of an earlier life whose providers have given handles."""
        try:
            await self.payments.take_up(self.targets.by_name)
        except CallFailed as failure:
            self.context.log.warning("held calls are taken up only by requests under their keys: {}", failure)
        if self.payments.reconciler.has_news:
            self._be_reminded()

    @handles(Terminated)
    def replace_service(self, message: Terminated) -> None:
        """Replace a service that was stopped or killed from outside."""
        self.services.ended(message.ref)

    @handles(CloseIdleDue)
    def close_idle(self, message: CloseIdleDue) -> None:
        """Close the gateways that have been idle for long."""
        self.idle_gateways.close_due()

    @handles(OpenQuota)
    def open_quota(self, message: OpenQuota) -> ActorRef[Acquire]:
        """Start a limiter."""
        self.quotas += 1
        return self.context.spawn(
            lambda: RateLimiter(message.name, rate=message.rate, burst=message.burst), name=f"quota-{self.quotas}"
        )

    @handles(ScoreAnswer)
    def score(self, message: ScoreAnswer) -> None:
        """Learn how good an answer was."""
        self.deps.scores.learn(message, listed=self.targets.by_name, now=self.context.now())

    @handles(Isolate)
    def isolate(self, message: Isolate) -> None:
        """Isolate a provider by hand."""
        target = self.targets.named(message.provider)
        self._isolated.add(target.name)
        target.isolate()

    @handles(Release)
    def release(self, message: Release) -> None:
        """Release a provider by hand."""
        target = self.targets.named(message.provider)
        self._isolated.discard(target.name)
        target.release()

    @handles(GetStatus, concurrent=100)
    async def status(self, message: GetStatus) -> tuple[TargetStatus, ...]:
        """Tell the state of every provider."""
        targets = list(self.targets.by_name.values())
        if message.check_health:
            await asyncio.gather(*(target.check(max_age=0.0) for target in targets))
        return tuple(target.status(short=self.payments.short_of_money(target.name)) for target in targets)

    @handles(GetRequests, concurrent=100)
    async def list_requests(self, message: GetRequests) -> RequestsUnderWay:
        """Tell which requests are under way, and what they wait for."""
        return await look_at(self.deps, self.under_way, most=message.most)

    def unclaimed(self, request: Request[Any], answer: Any) -> None:
        """Undo what was opened for a caller that had gone before the answer came."""
        if isinstance(request, OpenAccount):
            self.payments.close_account(answer)
        elif isinstance(request, OpenQuota):
            answer.stop()

    def _begin(self, message: SmartRequest) -> Job:
        context = self.deps.context
        now, asked_until = context.now(), context.deadline
        deadline = now + message.timeout
        if message.stream is not None and message.stream.timeout is None:
            deadline = min(deadline, now + self.market.streams.timeout)
        if asked_until is not None and asked_until < deadline:
            deadline = asked_until  # The caller has less time than the request allows.
        self.begun += 1
        job = Job(
            message,
            message.request_id or own_id(context.random.getrandbits(128)),
            started=now,
            deadline=deadline,
            risk=risk_of(message, self.market),
        )
        if self.tracing is not None:
            job.trace = self.tracing.begin(
                message.service, now, trace=message.trace, request_id=job.request_id, account=message.account
            )
        return job

    def _end(self, job: Job, result: SmartResult | None, error: str | None) -> None:
        """Leave nothing behind, whatever became of the request."""
        is_done = result is not None
        if job.entry.has_come_by:
            self.queues.leave(job.entry)
        if job.item_failures:
            end_trial(job, is_answered=is_done)
        held = (job if job.served is None else job.served).held
        self.ended["done" if is_done else "failed" if held is None else "unknown"] += 1
        if job.held is not None:
            self.payments.reconcile_later(job.held)
        if self.payments.reconciler.has_news:
            self._be_reminded()
        if job.trace is not None:
            end_request(job.trace, job, result, error, self.context.now())

    def _leave(self, job: Job) -> None:
        """Leave nothing behind of a request that was served for all that asked for it."""
        if job.entry.has_come_by:
            self.queues.leave(job.entry)
        if job.item_failures:
            end_trial(job, is_answered=False)
        if job.held is not None:
            self.payments.reconcile_later(job.held)
        if self.payments.reconciler.has_news:
            self._be_reminded()

    def _be_reminded(self) -> None:
        """Set a timer for the next call to reconcile."""
        if self.reminder is not None:
            self.reminder.cancel()
            self.reminder = None
        reconciler = self.payments.reconciler
        reconciler.has_news, due = False, reconciler.next_due
        if due < math.inf:
            with suppress(ActorStopped):  # Then it is left to the next holder of the ledger.
                self.reminder = self.context.timers.once(max(0.0, due - self.context.now()), ReconcileDue())

    def broken_invariants(self) -> Iterator[str]:
        if self.has_started:
            yield from self.targets.broken_invariants()
        yield from self.queues.broken_invariants()
        if self.begun != self.ended.total():
            yield f"{self.begun} requests were begun, and {self.ended.total()} ended: {dict(self.ended)}"

    def __repr__(self) -> str:
        return f"<Supervisor {len(self.market.providers)} providers, {len(self.queues)} requests waiting>"


def _ended(
    job: Job, result: SmartResult | None, *, latency: float, error: str | None, detail: str | None
) -> RequestEnded:
    return RequestEnded(
        request_id=job.request_id,
        service=job.message.service,
        provider=None if result is None else result.provider,
        attempts=job.calls,
        latency=latency,
        cost=micros_of(job.cost),
        error=error,
        detail=detail,
        tenant=job.message.tenant,
        saved=ZERO if result is None else result.saved,
    )
