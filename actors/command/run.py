"""`understudy run`: send every request of a file through a market, write each outcome at once, and report."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from actors.batch.outcomes import Done, Failed
from actors.batch.resuming import ItemKeys
from actors.batch.robust_batch import robust_batch
from actors.command.bad_input import BadInput, one_line
from actors.command.display import report_text
from actors.command.going_on import BATCH, go_on, wanted_requests
from actors.command.interrupts import Interrupts
from actors.command.live_page import live_page
from actors.command.on_nodes import note_nodes, spawn_spread, system_for
from actors.command.progress import choose_progress, logging_to, ticking, write_error
from actors.command.report import Ended, Report, RunTally
from actors.command.results_file import CannotWrite, OutputFile, ResultLine, result_line
from actors.errors.families import AllProvidersFailed, BudgetExceeded, CallFailed
from actors.events import BreakerClosed, BreakerHalfOpened, BreakerOpened, ProviderBack, ProviderLeft
from actors.ledger.config import LedgerConfig
from actors.ledger.errors import JournalDown, JournalFailed
from actors.ledger.ledger import Ledger
from actors.masking import escaped
from actors.money import ZERO, Micros, usd
from actors.monitor import Monitor
from actors.report import Recording, html_page
from actors.supervisor.messages import GetStatus
from actors.supervisor.payments.accounts import RUN
from actors.supervisor.supervisor import LEDGER_MAILBOX, Supervisor
from actors.webhooks import spawn_senders
from runtime import Event, RuntimeFault
from runtime.persistence import JournalError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Coroutine

    from rich.console import Console

    from actors.batch.batch_outcomes import BatchOutcomes
    from actors.batch.kept_batch import KeptBatch
    from actors.batch.outcomes import RequestOutcome
    from actors.command.going_on import Wanted
    from actors.command.plan import Plan
    from actors.command.progress import ProgressDisplay
    from actors.command.requests_file import RequestLine
    from actors.supervisor.messages import SmartRequest
    from runtime import ActorRef, ActorSystem
    from runtime.cluster import Cluster

WATCH_INTERVAL = 0.5
"""Seconds between two looks at what holds requests back."""
STATUS_TIMEOUT = 5.0
"""Seconds that the supervisor has to say so."""


class CannotKeep(Exception):
    """The journal of a run cannot be written, for example because the disk is full."""


class BatchRun:
    """One run: its requests, those that have ended, and whether there is money left."""

    def __init__(self, plan: Plan, results: OutputFile, tally: RunTally, interrupts: Interrupts) -> None:
        self.plan = plan
        self.results = results
        self.tally = tally
        self.interrupts = interrupts
        self.recording: Recording | None = None
        """What its page is drawn from, if one is wanted."""
        self.account = BATCH
        """The account that `--budget` caps, by its name in errors."""
        self.kept: KeptBatch | None = None
        """The run as its journal has it; None if it is kept nowhere."""
        self.wanted: list[Wanted] = []
        if plan.options.journal is None:
            # Not the ids of the file: if two files have the same ids, the second must not repeat the first, and a
            # provider would take equal idempotency keys for a repetition.
            self.wanted, _ = wanted_requests(plan.requests, ItemKeys(secrets.token_hex(8)))
        self.under_way: dict[str, RequestLine] = {}
        self.refused: BudgetExceeded | None = None
        """The refusal of the smallest amount by a budget of the whole run; None as long as there is none."""

    async def go_on(self, supervisor: ActorRef[Any]) -> None:
        """Go on where the journal says that the run was left."""
        self.kept, self.wanted = await go_on(supervisor, self.plan, self.results, self.tally)
        self.account = self.kept.run.account

    async def requests(self) -> AsyncGenerator[SmartRequest]:
        """Yield the requests until the run is stopped; fail those at once that no budget of the run can pay."""
        for number, wanted in enumerate(self.wanted, start=1):
            line = wanted.line
            if self.interrupts.stop.is_set():
                return
            renews = self.refused is not None and self.refused.retry_after is not None
            if self.refused is not None and not renews and (needed := self.cheapest(line)) >= self.refused.needed:
                error = BudgetExceeded(needed=needed, available=self.refused.available, cap=self.refused.cap)
                outcome = Failed(number, line, error)
                await self.write(result_line(line.own_id, outcome, cost=ZERO, attempts=0, key=wanted.key))
                await asyncio.sleep(0)
                continue
            self.under_way[wanted.key] = line
            yield wanted.request(self.plan.options, account=None if self.kept is None else self.account)

    def cheapest(self, line: RequestLine) -> Micros:
        """Return the least that a request can cost; 0 if no provider offers it, which the supervisor reports."""
        eligible = (
            listing.provider.price
            for listing in self.plan.market.providers
            if line.service in listing.provider.services
            and line.where.matches(listing.provider, price=listing.typical_price) is None
        )
        return min(eligible, default=ZERO)

    async def receive(self, outcome: RequestOutcome) -> None:
        """Write the line of an outcome, and remember a refusal by a budget of the run.

        Raises `CannotKeep` if nothing can be kept any more, because of the disk for example.
        """
        key: str = outcome.item.request_id
        line = self.under_way.pop(key)
        ended = self.tally.take(key)
        cost, attempts = (ended.event.cost, ended.event.attempts) if ended is not None else (ZERO, 0)
        if not isinstance(outcome, Done):
            if isinstance(outcome.error, JournalDown | JournalFailed):
                raise CannotKeep(str(outcome.error))  # It never ran, and is asked for when the run goes on.
            refusals = [one for one in (self.refused, *_refusals_in(outcome.error, self.account)) if one is not None]
            self.refused = min(refusals, key=lambda one: one.needed, default=None)
        elif outcome.result.cost and outcome.result.receipt != "kept":
            self.tally.note_lost(key)  # Until it has its line.
        journal = self.plan.options.journal
        written = result_line(line.own_id, outcome, cost=cost, attempts=attempts, key=key, journal=journal)
        await self.write(written, doubt=None if ended is None else ended.doubt)

    async def write(self, line: ResultLine, *, doubt: str | None = None) -> None:
        """Write a line and count it."""
        await self.results.put(line, stop=self.interrupts.stop)
        if isinstance(line.key, str):
            self.tally.note_written(line.key)
        self.tally.count(line.status, doubt=doubt)

    async def write_cut_off(self) -> None:
        """Write a line for each request that was cut off and may have been paid; the others can be run again."""
        cut_off: list[tuple[ResultLine, str | None]] = []
        for key, ended in self.tally.take_all().items():
            line = self.under_way.pop(key, None)
            if line is not None and (ended.doubt is not None or ended.event.provider is not None):
                cut_off.append((_cut_off(line, key, ended), ended.doubt))
                if self.kept is None and ended.event.cost:
                    self.tally.note_lost(key)
        for written, doubt in cut_off:
            await self.write(written, doubt=doubt)

    def exit_code(self) -> int:
        """Return the exit code of the process."""
        if self.interrupts.exit_code is not None:
            return self.interrupts.exit_code
        if self.refused is not None:
            return 3
        return 0 if self.tally.statuses["done"] == self.tally.requests else 1


def _refusals_in(error: Exception, account: str) -> list[BudgetExceeded]:
    """Return the refusals of an item by the budgets of the whole run: its account's, and that of the market."""
    refusals = [error, *(error.refused if isinstance(error, AllProvidersFailed) else ())]
    return [one for one in refusals if isinstance(one, BudgetExceeded) and one.cap in (account, RUN)]


def _cut_off(line: RequestLine, key: str, ended: Ended) -> ResultLine:
    event = ended.event
    what = "its answer was lost" if event.error is None else f"{ended.doubt!r} may have been paid"
    return ResultLine(
        id=line.own_id,
        key=key,
        status="unknown",
        provider=event.provider or ended.doubt,
        cost=usd(event.cost),
        attempts=event.attempts,
        error=f"Interrupted: the run was stopped while this request was under way; {what}",
    )


def make_run(
    plan: Plan,
    *,
    results: OutputFile,
    report: OutputFile | None,
    html: OutputFile | None = None,
    console: Console,
    quiet: bool = False,
) -> tuple[int, Report]:
    """Make the run, with progress and closing report on `console`; return the exit code and the report.

    `report` gets the report as JSON, and `html` one as a page.
    """
    if plan.options.journal is None:
        results.begin()
    for file in (report, html):
        if file is not None:
            file.begin()
    alone = not results.is_terminal
    if plan.options.journal is None and plan.is_paid and not quiet:
        write_error(
            "note: nothing of this run is kept, so that what is interrupted is paid again; --journal FILE keeps it\n"
        )
    pages: list[str] | None = None if html is None else []
    code, figures = asyncio.run(_make_run(plan, results, choose_progress(console, quiet=quiet, alone=alone), pages))
    for file, content in (
        (report, msgspec.json.format(msgspec.json.encode(figures), indent=2) + b"\n"),
        (html, "".join(pages or ()).encode()),
    ):
        try:
            if file is not None:
                file.write(content)
        except CannotWrite as error:
            write_error(f"error: {error}\n")
            code = code or 1
    if not quiet:
        with suppress(OSError, ValueError):  # Standard error may have gone.
            console.print(report_text(figures))
    return code, figures


async def _make_run(
    plan: Plan, results: OutputFile, progress: ProgressDisplay, pages: list[str] | None = None
) -> tuple[int, Report]:
    loop = asyncio.get_running_loop()
    prices = {listing.provider.name: listing.typical_price for listing in plan.market.providers}
    tally = RunTally(requests=len(plan.requests), prices=prices, started=loop.time())
    interrupts = Interrupts()
    run = BatchRun(plan, results, tally, interrupts)
    recording = None if pages is None else Recording(loop.time)
    run.recording = recording
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
                await run.write_cut_off()
            code = run.exit_code()
            ending = "finished" if interrupts.signal is None else "interrupted"
        except (CannotWrite, CannotKeep) as error:
            ending, code = "failed", interrupts.exit_code or 1
            progress.warn(f"error: {escaped(one_line(str(error)))}; the run was stopped")
        except JournalError as error:
            if run.kept is None:  # Another process has taken it since it was looked at, or it is damaged.
                raise BadInput(str(error)) from error
            ending = "failed"
            progress.warn(f"error: the run was stopped: {escaped(one_line(str(error)))}")
        except (CallFailed, RuntimeFault) as error:
            # An error of the whole run and not of one request, such as a supervisor that crashed.
            ending = "failed"
            progress.warn(f"error: the run was stopped by {type(error).__name__}: {escaped(one_line(str(error)))}")
    exhausted = run.refused is not None
    if recording is not None and pages is not None:
        pages.append(html_page(recording, title=f"A run of {tally.requests:,} requests"))
    return code, tally.report(now=loop.time(), ending=ending, budget_exhausted=exhausted)


async def _serve(run: BatchRun, progress: ProgressDisplay) -> None:
    """Serve the requests until all have ended or the run is stopped; leave nothing running."""
    options, tally = run.plan.options, run.tally
    loop = asyncio.get_running_loop()

    def show_breaker(event: Event) -> None:
        if text := breaker_note(event):
            progress.note(f"{loop.time() - tally.started:.1f} s: {text}")

    async with (
        system_for(run.plan) as (system, cluster),
        ticking(progress, tally),
        live_page(system, run.plan.page),
    ):
        system.events.subscribe(Event, tally.receive)
        if run.recording is not None:
            system.events.subscribe(Event, run.recording.receive)
        system.events.subscribe(Event, show_breaker)
        if run.plan.market.alerts:
            spawn_senders(system, tuple(run.plan.market.alerts))
            system.spawn(Monitor, name="monitor")
        supervisor = spawn_supervisor(system, run.plan, cluster)
        await note_nodes(supervisor, cluster, progress)
        if options.journal is not None:
            await run.go_on(supervisor)
        outcomes: BatchOutcomes | None = None
        try:
            async with (
                robust_batch(
                    supervisor,
                    run.requests(),
                    max_concurrency=options.max_concurrency,
                    rate_limit=options.rate_limit,
                    budget=options.budget,
                    account=run.account,
                    journal=run.kept,
                    park=options.park,
                ) as outcomes,
                until(run.interrupts.stop, outcomes) as ended,
                watching(watch_waits(supervisor, run)),
            ):
                async for outcome in ended:
                    await run.receive(outcome)
        finally:
            if run.kept is not None and outcomes is not None:
                tally.account = outcomes.closed
        with suppress(RuntimeFault):  # Of a supervisor that has crashed, the requests have said so.
            tally.note_waits(await supervisor.ask(GetStatus(), timeout=STATUS_TIMEOUT))
        supervisor.stop()  # Before this program leaves the nodes that it may have, which it would take for lost.
        await supervisor.terminated()


def spawn_supervisor(system: ActorSystem, plan: Plan, cluster: Cluster | None = None) -> ActorRef[Any]:
    """Start the supervisor of a run, over a ledger with its journal if it is kept; of a `cluster`, over its nodes."""
    ledger = None
    if (path := plan.options.journal) is not None or cluster is not None:
        config = LedgerConfig(safety="power" if plan.is_paid else "process")
        ledger = system.spawn(lambda: Ledger(config, journal=path), name="ledger", mailbox=LEDGER_MAILBOX)
    if ledger is not None and cluster is not None:
        return spawn_spread(system, plan, ledger, cluster)
    return system.spawn(lambda: Supervisor(plan.market, ledger=ledger, tracing=plan.tracing), name="supervisor")


@asynccontextmanager
async def watching(work: Coroutine[Any, Any, None]) -> AsyncGenerator[None]:
    """Have work done beside the block, and end it with the block."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def watch_waits(supervisor: ActorRef[GetStatus], run: BatchRun) -> None:
    """Have the supervisor say, twice a second, what holds requests back."""
    while True:
        await asyncio.sleep(WATCH_INTERVAL)
        try:
            statuses = await supervisor.ask(GetStatus(), timeout=STATUS_TIMEOUT)
        except RuntimeFault:
            return  # The run ends with the supervisor, and says why.
        run.tally.note_waits(statuses)
        if run.recording is not None:
            for status in statuses:
                run.recording.note_waits(status.provider.name, status.waiting)


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
