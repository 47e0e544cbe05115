"""Send many requests through a supervisor, each with an outcome: answered, failed, or of unknown effect."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio

from actors.batch.batch_outcomes import BatchOutcomes
from actors.batch.batch_requests import BatchRequests
from actors.batch.fan_out import fan_out
from actors.batch.outcomes import Done, Failed, RequestOutcome, Unknown
from actors.errors.families import CallFailed, OutcomeUnknown, TooManyWaiting
from actors.ledger.messages import CloseAccount, OpenAccount
from actors.money import to_micros
from actors.rate_limiter.messages import Acquire
from actors.supervisor.client import ANSWER_GRACE
from actors.supervisor.messages import OpenQuota, SmartRequest
from actors.supervisor.options import DEFAULT_OPTIONS, RequestOptions
from actors.validation import says_option_names
from runtime import ActorCrashed, AskTimeout, RuntimeFault

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence

    from actors.batch.progress import OnProgress
    from actors.ledger.account import Account
    from actors.money import Amount, Micros
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
    on_progress: OnProgress | None = None,
) -> AsyncGenerator[BatchOutcomes]:
    """Serve every item, at most `max_concurrency` at the same time, and yield `Done | Failed | Unknown` as each ends.

    An item is the input of `service`, or a whole `SmartRequest`. `items` may be an async iterator without end: memory
    stays flat. `rate_limit` bounds the requests begun per second, `budget` the money of the whole batch and
    `item_budget` that of each item that brings none (dollars as str, int or Decimal); `timeout` is the seconds an item
    has once it has begun. `options` holds these and further options for each item, such as `risk`; what is given beside
    it goes before it. `account` names the batch in `BudgetExceeded.cap`; by default a name is made up.

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
    cap = None if budget is None else to_micros(budget)
    async with open_account(supervisor, account, cap=cap, rate_limit=rate_limit, closed=run.close) as (name, limiter):
        requests = BatchRequests(service, options, account=name)

        async def work(index: int, item: Any) -> RequestOutcome:
            outcome = await serve(supervisor, limiter, index, item, requests.request(item))
            run.add(outcome)
            if run.has_listener:
                await run.tell()
            return outcome

        async with fan_out(items, work, max_concurrency=max_concurrency) as outcomes:
            yield run.begin(outcomes)


@asynccontextmanager
async def open_account(
    supervisor: ActorRef[Any],
    account: str | None,
    *,
    cap: Micros | None,
    rate_limit: float | None,
    closed: Callable[[Account], None],
) -> AsyncGenerator[tuple[str, ActorRef[Acquire] | None]]:
    """Open an account, and a quota if there is a `rate_limit`; yield its name and the limiter, and close both.

    `closed` is given the figures of the account at its end.
    """
    limiter: ActorRef[Acquire] | None = None
    name = await supervisor.ask(OpenAccount(name=account, cap=cap), timeout=ACCOUNT_TIMEOUT)
    try:
        if rate_limit is not None:
            limiter = await supervisor.ask(OpenQuota(name=name, rate=rate_limit), timeout=ACCOUNT_TIMEOUT)
        yield name, limiter
    finally:
        if limiter is not None:
            limiter.stop()
        with anyio.CancelScope(shield=True), suppress(CallFailed, RuntimeFault):
            # A supervisor that has ended or restarted has forgotten its accounts.
            closed(await supervisor.ask(CloseAccount(name=name), timeout=ACCOUNT_TIMEOUT))


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
