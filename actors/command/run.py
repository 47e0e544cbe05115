"""`understudy run`: send every request of a file through a market, write each outcome at once, and report."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Literal

import msgspec

from actors.batch.outcomes import Done, Failed
from actors.batch.robust_batch import robust_batch
from actors.command.bad_input import one_line
from actors.command.display import report_text
from actors.command.interrupts import Interrupts
from actors.command.progress import choose_progress, logging_to, ticking, write_error
from actors.command.report import Ended, Report, RunTally
from actors.command.results_file import CannotWrite, OutputFile, ResultLine, result_line
from actors.errors.families import AllProvidersFailed, BudgetExceeded, CallFailed
from actors.events import BreakerClosed, BreakerHalfOpened, BreakerOpened, ProviderBack, ProviderLeft
from actors.masking import escaped
from actors.money import ZERO, Micros, usd
from actors.supervisor.messages import GetStatus, SmartRequest
from actors.supervisor.payments.accounts import RUN
from actors.supervisor.supervisor import Supervisor
from runtime import ActorSystem, Event, RuntimeFault

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from rich.console import Console

    from actors.batch.outcomes import RequestOutcome
    from actors.command.plan import Plan
    from actors.command.progress import ProgressDisplay
    from actors.command.requests_file import RequestLine
    from runtime import ActorRef

BATCH = "batch"
"""The account that `--budget` caps, by its name in errors."""
CAPS = (BATCH, RUN)
"""The accounts without whose money the whole run ends; the second has the budget of the market."""
WATCH_INTERVAL = 0.5
"""Seconds between two looks at what holds requests back."""
STATUS_TIMEOUT = 5.0
"""Seconds that the supervisor has to say so."""


class BatchRun:
    """One run: its requests, those that have ended, and whether there is money left."""

    def __init__(self, plan: Plan, results: OutputFile, tally: RunTally, interrupts: Interrupts) -> None:
        self.plan = plan
        self.results = results
        self.tally = tally
        self.interrupts = interrupts
        # Not the ids of the file: if two files have the same ids, the second must not repeat the first, and a
        # provider would take equal idempotency keys for a repetition.
        self.name = secrets.token_hex(8)
        self.under_way: dict[str, RequestLine] = {}
        self.refused: BudgetExceeded | None = None
        """The refusal of the smallest amount by a budget of the whole run; None as long as there is none."""

    async def requests(self) -> AsyncGenerator[SmartRequest]:
        """Yield the requests until the run is stopped; fail those at once that no budget of the run can pay."""
        options = self.plan.options
        for number, line in enumerate(self.plan.requests, start=1):
            if self.interrupts.stop.is_set():
                return
            if self.refused is not None and (needed := self.cheapest(line)) >= self.refused.needed:
                error = BudgetExceeded(needed=needed, available=self.refused.available, cap=self.refused.cap)
                self.write(result_line(line.id, Failed(number, line, error), cost=ZERO, attempts=0))
                await asyncio.sleep(0)
                continue
            request_id = f"{self.name}-{number}"
            self.under_way[request_id] = line
            yield SmartRequest(
                service=line.service,
                input=line.input,
                timeout=line.timeout or options.timeout,
                budget=line.budget,
                risk=line.risk,
                where=line.where,
                strategies=options.strategies,
                health_check=options.health_check,
                request_id=request_id,
            )

    def cheapest(self, line: RequestLine) -> Micros:
        """Return the least that a request can cost; 0 if no provider offers it, which the supervisor reports."""
        eligible = (
            listing.provider.price
            for listing in self.plan.market.providers
            if line.service in listing.provider.services
            and line.where.matches(listing.provider, price=listing.typical_price) is None
        )
        return min(eligible, default=ZERO)

    def receive(self, outcome: RequestOutcome) -> None:
        """Write the line of an outcome, and remember a refusal by a budget of the run."""
        request_id: str = outcome.item.request_id
        line = self.under_way.pop(request_id)
        ended = self.tally.take(request_id)
        cost, attempts = (ended.event.cost, ended.event.attempts) if ended is not None else (ZERO, 0)
        if not isinstance(outcome, Done):
            refusals = [one for one in (self.refused, *_refusals_in(outcome.error)) if one is not None]
            self.refused = min(refusals, key=lambda one: one.needed, default=None)
        self.write(
            result_line(line.id, outcome, cost=cost, attempts=attempts), doubt=None if ended is None else ended.doubt
        )

    def write(self, line: ResultLine, *, doubt: str | None = None) -> None:
        """Write a line and count it."""
        self.results.write_json(line)
        self.tally.count(line.status, doubt=doubt)

    def write_cut_off(self) -> None:
        """Write a line for each request that was cut off and may have been paid; the others can be run again."""
        for request_id, ended in self.tally.take_all().items():
            line = self.under_way.pop(request_id, None)
            if line is not None and (ended.doubt is not None or ended.event.provider is not None):
                self.write(_cut_off(line, ended), doubt=ended.doubt)

    def exit_code(self) -> int:
        """Return the exit code of the process."""
        if self.interrupts.exit_code is not None:
            return self.interrupts.exit_code
        if self.refused is not None:
            return 3
        return 0 if self.tally.statuses["done"] == self.tally.requests else 1


def _refusals_in(error: Exception) -> list[BudgetExceeded]:
    """Return the refusals of an item by the budgets of the whole run."""
    refusals = [error, *(error.refused if isinstance(error, AllProvidersFailed) else ())]
    return [one for one in refusals if isinstance(one, BudgetExceeded) and one.cap in CAPS]


def _cut_off(line: RequestLine, ended: Ended) -> ResultLine:
    event = ended.event
    what = "its answer was lost" if event.error is None else f"{ended.doubt!r} may have been paid"
    return ResultLine(
        id=line.id,
        status="unknown",
        provider=event.provider or ended.doubt,
        cost=usd(event.cost),
        attempts=event.attempts,
        error=f"Interrupted: the run was stopped while this request was under way; {what}",
    )


def make_run(
    plan: Plan, *, results: OutputFile, report: OutputFile | None, console: Console, quiet: bool = False
) -> tuple[int, Report]:
    """Make the run, with progress and closing report on `console`; return the exit code and the report."""
    results.begin()
    if report is not None:
        report.begin()
    alone = not results.is_terminal
    code, figures = asyncio.run(_make_run(plan, results, choose_progress(console, quiet=quiet, alone=alone)))
    if report is not None:
        try:
            report.write(msgspec.json.format(msgspec.json.encode(figures), indent=2) + b"\n")
        except CannotWrite as error:
            write_error(f"error: {error}\n")
            code = code or 1
    if not quiet:
        console.print(report_text(figures))
    return code, figures


async def _make_run(plan: Plan, results: OutputFile, progress: ProgressDisplay) -> tuple[int, Report]:
    loop = asyncio.get_running_loop()
    prices = {listing.provider.name: listing.typical_price for listing in plan.market.providers}
    tally = RunTally(requests=len(plan.requests), prices=prices, started=loop.time())
    interrupts = Interrupts()
    run = BatchRun(plan, results, tally, interrupts)
    ending: Literal["finished", "interrupted", "failed"] = "finished"
    code = 1
    with ExitStack() as stack:
        stack.callback(progress.close)
        stack.enter_context(
            interrupts.listening(
                first=lambda: progress.note("interrupted: stopping; a second interrupt ends at once"),
                at_once=progress.close,
            )
        )
        stack.enter_context(logging_to(progress, is_stopping=interrupts.stop.is_set))
        try:
            try:
                await _serve(run, progress)
            finally:
                run.write_cut_off()
            code = run.exit_code()
            ending = "finished" if interrupts.signal is None else "interrupted"
        except CannotWrite as error:
            ending = "failed"
            progress.warn(f"error: {error}; the run was stopped")
        except (CallFailed, RuntimeFault) as error:
            # An error of the whole run and not of one request, such as a supervisor that crashed.
            ending = "failed"
            progress.warn(f"error: the run was stopped by {type(error).__name__}: {escaped(one_line(str(error)))}")
    exhausted = run.refused is not None
    return code, tally.report(now=loop.time(), ending=ending, budget_exhausted=exhausted)


async def _serve(run: BatchRun, progress: ProgressDisplay) -> None:
    """Serve the requests until all have ended or the run is stopped; leave nothing running."""
    options, tally = run.plan.options, run.tally
    started = tally.started
    loop = asyncio.get_running_loop()

    def show_breaker(event: Event) -> None:
        if text := breaker_note(event):
            progress.note(f"{loop.time() - started:.1f} s: {text}")

    async with ActorSystem("run", seed=options.seed) as system, ticking(progress, tally):
        system.events.subscribe(Event, tally.receive)
        system.events.subscribe(Event, show_breaker)
        supervisor = system.spawn(lambda: Supervisor(run.plan.market), name="supervisor")
        async with (
            robust_batch(
                supervisor,
                run.requests(),
                max_concurrency=options.max_concurrency,
                rate_limit=options.rate_limit,
                budget=options.budget,
                account=BATCH,
            ) as outcomes,
            until(run.interrupts.stop, outcomes) as ended,
        ):
            watching = asyncio.create_task(watch_waits(supervisor, tally))
            try:
                async for outcome in ended:
                    run.receive(outcome)
            finally:
                watching.cancel()
                await asyncio.wait([watching])
        with suppress(RuntimeFault):  # Of a supervisor that has crashed, the requests have said so.
            tally.note_waits(await supervisor.ask(GetStatus(), timeout=STATUS_TIMEOUT))


async def watch_waits(supervisor: ActorRef[GetStatus], tally: RunTally) -> None:
    """Have the supervisor say, twice a second, what holds requests back."""
    while True:
        await asyncio.sleep(WATCH_INTERVAL)
        try:
            tally.note_waits(await supervisor.ask(GetStatus(), timeout=STATUS_TIMEOUT))
        except RuntimeFault:
            return  # The run ends with the supervisor, and says why.


def breaker_note(event: Event) -> str | None:
    """Return a line for a provider that is called no more, or again; None for other events."""
    match event:
        case BreakerOpened():
            return f"{event.provider}: breaker open for {event.wait:.1f} s, its requests are rerouted"
        case BreakerHalfOpened():
            return f"{event.provider}: breaker half-open, one probe"
        case BreakerClosed():
            return f"{event.provider}: breaker closed again"
        case ProviderLeft():
            return one_line(event.cause)
        case ProviderBack():
            return f"{event.provider}: {event.what} is no longer a reason not to call it"
        case _:
            return None


@asynccontextmanager
async def until(
    stop: asyncio.Event, outcomes: AsyncIterator[RequestOutcome]
) -> AsyncGenerator[AsyncIterator[RequestOutcome]]:
    """Yield an iterator of the outcomes that ends when `stop` is set, after those that are ready then."""
    stopping = asyncio.create_task(stop.wait())
    following: asyncio.Task[RequestOutcome | None] | None = None

    async def next_outcome() -> RequestOutcome | None:
        return await anext(outcomes, None)

    async def iterate() -> AsyncGenerator[RequestOutcome]:
        nonlocal following
        while True:
            following = asyncio.create_task(next_outcome())
            await asyncio.wait({following, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done() or (outcome := following.result()) is None:
                return
            yield outcome

    ended = iterate()
    try:
        yield ended
    finally:
        await ended.aclose()
        tasks: list[asyncio.Task[object]] = [task for task in (stopping, following) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
