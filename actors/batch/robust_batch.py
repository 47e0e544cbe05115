"""Send many requests through a supervisor, each with an outcome: answered, failed, or of unknown effect."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import anyio
import msgspec

from actors.batch.batch_outcomes import BatchOutcomes
from actors.batch.batch_requests import BatchRequests
from actors.batch.fan_out import fan_out
from actors.batch.kept_batch import TIMEOUT as KEPT_TIMEOUT
from actors.batch.kept_batch import BatchJournal, KeptBatch, open_kept
from actors.batch.outcomes import Done, Failed, RequestOutcome, Unknown
from actors.batch.parking import checked_park
from actors.batch.parking_lot import ItemTurn, ParkingLot, WithoutParked
from actors.batch.resuming import DEFAULT_NAME
from actors.errors.families import CallFailed, OutcomeUnknown, TooManyWaiting
from actors.ledger.messages import CloseAccount, OpenAccount
from actors.ledger.periods import read_cap
from actors.rate_limiter.messages import Acquire
from actors.supervisor.client import ANSWER_GRACE
from actors.supervisor.messages import OpenQuota, SmartRequest
from actors.supervisor.options import DEFAULT_OPTIONS, RequestOptions
from actors.validation import says_option_names
from runtime import ActorCrashed, AskTimeout, RuntimeFault

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
    from os import PathLike

    from actors.batch.progress import OnProgress
    from actors.ledger.account import Account
    from actors.money import Amount
    from actors.providers.provider import Predicate, ProviderFilter
    from actors.providers.selection import SelectionStrategy
    from runtime import ActorRef

ACCOUNT_TIMEOUT = 5.0
"""Seconds that the supervisor has to open or close an account."""
LONGEST_PAUSE = 1.0
"""Seconds after which an item asks again at the latest if too many requests wait already."""
MAX_QUEUEING = 365 * 86_400.0
"""Seconds that an item may wait for the batch's rate limit."""


@says_option_names
@asynccontextmanager
async def robust_batch(
    supervisor: ActorRef[Any],
    items: Iterable[Any] | AsyncIterable[Any],
    *,
    service: str | None = None,
    options: RequestOptions = DEFAULT_OPTIONS,
    max_concurrency: int = 10,
    rate_limit: float | None = None,
    budget: Amount | None = None,
    item_budget: Amount | None = None,
    where: ProviderFilter | Predicate | None = None,
    strategy: SelectionStrategy | None = None,
    fallback_strategies: Sequence[SelectionStrategy] | None = None,
    health_check: bool | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 - for each item; it travels as a deadline.
    account: str | None = None,
    journal: str | PathLike[str] | BatchJournal | KeptBatch | None = None,
    park: bool | float = False,
    on_progress: OnProgress | None = None,
) -> AsyncGenerator[BatchOutcomes]:
    """Serve every item, at most `max_concurrency` at the same time, and yield `Done | Failed | Unknown` as each ends.

    An item is the input of `service`, or a whole `SmartRequest`. `items` may be an async iterator without end: memory
    stays flat. `rate_limit` bounds the requests begun per second, `budget` the money of the whole batch, or of each
    period ("20/day"), and `item_budget` that of each item that brings none (dollars as str, int or Decimal); `timeout`
    is the seconds an item has once it has begun. `options` holds these and further options for each item, such as
    `risk`; what is given beside it goes before it. `account` names the batch in `BudgetExceeded.cap`; by default a name
    is made up.

    With the `journal` of the supervisor's ledger, the batch outlives the program: one of the same name (`account`, by
    default "batch") goes on. What was answered or has failed is not asked for again, and its outcome is given again; of
    calls that were under way it is found out what became of them; the budget is that of all runs together. An item is
    known by its `idempotency_key` or `request_id`, else by what it asks for, and how often that has come before. Its
    key is kept for as long as the ledger's keys are. A `BatchJournal` says what is to be done again.

    With `park`, which needs a journal, an item that meets a reset beyond its deadline, such as that of a day's quota,
    or the renewal of a cap, is put down until then and asked for again, for 7 days at most, or so many seconds. It
    holds nothing meanwhile, and the batch goes on until each item has ended; one that is left early goes on in the next
    life.

    `on_progress(finished, total)` is called after each item, and awaited if it is async; the total is None for a source
    without a length. An error of it is reported to the event loop's exception handler, and stops nothing. What is
    yielded has a `summary` of the figures so far, which is exact in its money once the block is left.

    Leaving the block early cancels what is under way and closes the source. What that raises is raised to the consumer.
    """
    if isinstance(items, str | bytes):
        raise TypeError(f"items must be many inputs, got one text, {items!r:.100}; put it in a list")
    options = options.changed(
        budget=item_budget,
        where=where,
        strategy=strategy or options.strategy or "balanced",
        fallback_strategies=fallback_strategies,
        health_check=health_check,
        timeout=timeout,
    )
    run = BatchOutcomes(items, on_progress)
    cap, renewal = (None, None) if budget is None else read_cap(budget)
    kept, longest = None, checked_park(park)
    if longest is not None and journal is None:
        raise ValueError("park needs a journal, in which parked items wait; give the batch that of its ledger")
    if isinstance(journal, KeptBatch):
        kept = journal
    elif journal is not None:
        journal = journal if isinstance(journal, BatchJournal) else BatchJournal(journal)
        kept = await open_kept(supervisor, journal, name=account or DEFAULT_NAME)
    opening = OpenAccount(name=account if kept is None else kept.run.account, cap=cap, renewal=renewal)
    opened = open_account(supervisor, opening, rate_limit=rate_limit, closed=run.close, kept=kept)
    async with opened as (name, limiter):
        requests = BatchRequests(service, options, account=name)

        lot = run.lot = None if longest is None else ParkingLot(name, longest=longest)

        async def work(index: int, item: Any) -> RequestOutcome | None:
            if kept is None:
                outcome = await serve(supervisor, limiter, index, item, requests.request(item))
            else:
                turn = ItemTurn(index, item) if lot is None else item
                outcome = await serve_kept(supervisor, limiter, kept, turn, requests.request(turn.item), lot)
            if outcome is not None:
                run.add(outcome)
                if run.has_listener:
                    await run.tell()
            return outcome

        source, served = (items, work) if lot is None else (lot.turns(items), lot.serving(work))
        async with fan_out(source, served, max_concurrency=max_concurrency) as outcomes:
            # Without parking, each item has an outcome, and what is yielded needs no look.
            yield run.begin(cast("AsyncIterator[RequestOutcome]", outcomes) if lot is None else WithoutParked(outcomes))


@asynccontextmanager
async def open_account(
    supervisor: ActorRef[Any],
    opening: OpenAccount,
    *,
    rate_limit: float | None,
    closed: Callable[[Account], None],
    kept: KeptBatch | None = None,
) -> AsyncGenerator[tuple[str, ActorRef[Acquire] | None]]:
    """Open an account, and a quota if there is a `rate_limit`; yield its name and the limiter, and close both.

    `closed` is given the figures of the account at its end. That of a run that is `kept` stays open for the next time.
    """
    limiter: ActorRef[Acquire] | None = None
    name = await supervisor.ask(opening, timeout=ACCOUNT_TIMEOUT if kept is None else KEPT_TIMEOUT)
    try:
        if rate_limit is not None:
            limiter = await supervisor.ask(OpenQuota(name=name, rate=rate_limit), timeout=ACCOUNT_TIMEOUT)
        yield name, limiter
    finally:
        if limiter is not None:
            limiter.stop()
        with anyio.CancelScope(shield=True), suppress(CallFailed, RuntimeFault):
            # A supervisor that has ended or restarted has forgotten its accounts.
            leaving = supervisor.ask(CloseAccount(name=name), timeout=ACCOUNT_TIMEOUT) if kept is None else kept.leave()
            closed(await leaving)


async def serve_kept(
    supervisor: ActorRef[Any],
    limiter: ActorRef[Acquire] | None,
    kept: KeptBatch,
    turn: ItemTurn,
    request: SmartRequest,
    lot: ParkingLot | None,
) -> RequestOutcome | None:
    """Return the outcome of an item that has one, else serve it, and keep what came of it; None if it is parked."""
    index, item = turn.index, turn.item
    try:
        key = turn.key or kept.key_of(request)
        ended = turn.ended or kept.find(key)
        if ended is not None and kept.is_over(ended):
            outcome = await kept.outcome(key, ended, index=index, source=item, request=request)
            if outcome is not None:
                return outcome
            ended = None
        if ended is not None and lot is not None and turn.ended is None and lot.park_again(turn, ended, key=key):
            return None
        revision, request = await kept.begin(key, ended, request)
    except (CallFailed, RuntimeFault) as error:
        return Failed(index, item, error)
    started = asyncio.get_running_loop().time()
    outcome = await serve(supervisor, limiter, index, item, request)
    if lot is not None and isinstance(outcome, Failed):
        parked = lot.park(msgspec.structs.replace(turn, ended=ended), outcome.error, key=key, revision=revision)
        if parked is not None:
            await kept.park(key, parked, why=outcome.error)
            return None
    await kept.keep(key, outcome, started=started, revision=revision)
    return outcome


async def serve(
    supervisor: ActorRef[Any], limiter: ActorRef[Acquire] | None, index: int, item: Any, request: SmartRequest
) -> RequestOutcome:
    """Send one request when the limiter permits it, and return its outcome.

    If too many requests wait already, it is sent again: no item is lost by that, and its time begins anew.
    """
    try:
        if limiter is not None:
            # A long wait queue is no failure of the item, whose own time begins with its turn.
            await limiter.ask(Acquire(), timeout=MAX_QUEUEING)
    except (CallFailed, RuntimeFault) as error:
        return Failed(index, item, error)
    try:
        while True:
            try:
                return Done(index, item, await supervisor.ask(request, timeout=request.timeout + ANSWER_GRACE))
            except TooManyWaiting as refusal:
                pause = min(refusal.retry_after or 0.0, LONGEST_PAUSE)
            await asyncio.sleep(pause)
    except (AskTimeout, ActorCrashed) as error:
        # The supervisor took the request, and how far it came is unknown.
        unknown = OutcomeUnknown(f"the supervisor did not say what became of the request: {error}")
        unknown.__cause__ = error
        return Unknown(index, item, unknown)
    except CallFailed as error:
        return Unknown(index, item, error) if error.charged == "held" else Failed(index, item, error)
    except RuntimeFault as error:
        return Failed(index, item, error)
