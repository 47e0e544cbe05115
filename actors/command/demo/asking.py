"""Asks the models for every text of the demo at once: as a batch, and some as streams, through one supervisor."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec

from actors.batch.concurrent import concurrent
from actors.batch.outcomes import Done, ItemDone
from actors.batch.robust_batch import robust_batch
from actors.command.bad_input import one_line
from actors.command.demo.books import OurBooks
from actors.command.interrupts import Interrupts
from actors.command.progress import choose_progress, logging_to, ticking
from actors.command.report import Report, RunTally
from actors.command.results_file import ResultLine
from actors.command.run import breaker_note
from actors.market.market import Market
from actors.model_calls.answer import read_answer
from actors.models.chat_stream import chat_stream
from actors.money import ZERO, usd
from actors.policies.breaker.config import BreakerConfig
from actors.policies.retry import Retry
from actors.supervisor.options import RequestOptions
from actors.supervisor.supervisor import Supervisor
from runtime import ActorSystem, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from rich.console import Console

    from actors.batch.outcomes import ItemOutcome, RequestOutcome
    from actors.command.demo.processes import RunningServer
    from actors.command.demo.tasks import Task
    from actors.models.chat import ChatResult
    from actors.supervisor.messages import SmartResult
    from runtime import ActorRef

RUN = 7.0
"""Seconds that the requests are spread over."""
BUDGET = "1.00"
"""What all requests together may cost, in dollars."""
RISK = "0.01"
"""What may be paid twice for one text because a call was cut off, in dollars."""
OPTIONS = RequestOptions(strategy="cheapest", risk=RISK, timeout=60.0)


class DemoRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a run has shown: its lines, its report, what was booked at each server, and the signal that stopped it."""

    lines: list[ResultLine]
    report: Report
    ours: dict[str, OurBooks]
    exit_code: int | None


def demo_market(servers: Sequence[RunningServer]) -> Market:
    """Return the market of these servers. Its waits are short, because the whole run is short."""
    return Market(
        providers=[one.server.listing(one.url) for one in servers],
        retry=Retry(max_retries=8, base=0.1, cap=1.0),
        breaker=BreakerConfig(failure_threshold=5, failure_rate=0.7, open_for=0.5, max_open_for=1.0),
        budget=BUDGET,
    )


class Asking:
    """One run of the demo: the answers so far, and the figures."""

    def __init__(self, servers: Sequence[RunningServer], tasks: Sequence[Task], *, seed: int, started: float) -> None:
        self.market = demo_market(servers)
        self.ours = {one.server.name: OurBooks() for one in servers}
        self.lines: list[ResultLine] = []
        self.tally = RunTally(requests=len(tasks), prices=dict.fromkeys(self.ours, ZERO), started=started)
        self._tasks, self._seed = tasks, seed

    async def run(self, on_event: Callable[[Event], None]) -> None:
        """Ask for every text; each event is given to `on_event` too."""
        streamed = [task for task in self._tasks if task.streams]
        plain = [task for task in self._tasks if not task.streams]
        async with ActorSystem("demo", seed=self._seed) as system, asyncio.TaskGroup() as group:
            system.events.subscribe(Event, self.receive)
            system.events.subscribe(Event, on_event)
            supervisor = system.spawn(lambda: Supervisor(self.market), name="supervisor")
            group.create_task(self._ask_plainly(supervisor, plain))
            group.create_task(self._ask_for_streams(supervisor, streamed))

    def receive(self, event: Event) -> None:
        """Count an event."""
        self.tally.receive(event)
        provider: object = getattr(event, "provider", None)
        if isinstance(provider, str) and provider in self.ours:
            self.ours[provider].receive(event)

    async def _ask_plainly(self, supervisor: ActorRef[Any], tasks: Sequence[Task]) -> None:
        requests = [task.request for task in tasks]
        batch = robust_batch(
            supervisor, requests, service="chat", options=OPTIONS, max_concurrency=40, rate_limit=len(tasks) / RUN
        )
        async with batch as outcomes:
            async for outcome in outcomes:
                self._write(plain_line(tasks[outcome.index], outcome))

    async def _ask_for_streams(self, supervisor: ActorRef[Any], tasks: Sequence[Task]) -> None:
        async def ask(task: Task) -> ChatResult:
            body = task.request.body
            stream = chat_stream(supervisor, **body, options=OPTIONS, timeout=60.0, after_cut="restart")
            async with stream:
                async for _ in stream:
                    pass
            return stream.result

        async with concurrent(tasks, ask, max_concurrency=20, rate_limit=len(tasks) / RUN) as outcomes:
            async for outcome in outcomes:
                self._write(streamed_line(outcome))

    def _write(self, line: ResultLine) -> None:
        self.lines.append(line)
        self.tally.count(line.status)


def plain_line(task: Task, outcome: RequestOutcome) -> ResultLine:
    """Return the line of a text that was asked for as a whole."""
    if isinstance(outcome, Done):
        text = read_answer("chat", outcome.result.output).text
        return _answered(task, text, outcome.result)
    return _not_answered(task, outcome.error)


def streamed_line(outcome: ItemOutcome[Task, ChatResult]) -> ResultLine:
    """Return the line of a text that was asked for as a stream."""
    if isinstance(outcome, ItemDone):
        return _answered(outcome.item, outcome.result.text, outcome.result.result)
    return _not_answered(outcome.item, outcome.error)


def _answered(task: Task, text: str, result: SmartResult) -> ResultLine:
    return ResultLine(
        id=task.id,
        status="done",
        output=text,
        provider=result.provider,
        cost=usd(result.cost),
        attempts=result.attempts,
        at_risk=usd(result.at_risk) if result.at_risk else msgspec.UNSET,
    )


def _not_answered(task: Task, error: Exception) -> ResultLine:
    return ResultLine(id=task.id, status="failed", error=one_line(f"{type(error).__name__}: {error}"))


async def ask_all(servers: Sequence[RunningServer], tasks: Sequence[Task], *, seed: int, console: Console) -> DemoRun:
    """Ask the servers for every text, with progress on the console, until all have ended or a signal comes."""
    loop = asyncio.get_running_loop()
    progress = choose_progress(console, quiet=False, alone=True)
    interrupts = Interrupts()
    asking = Asking(servers, tasks, seed=seed, started=loop.time())

    def show_breaker(event: Event) -> None:
        if text := breaker_note(event):
            progress.note(f"{loop.time() - asking.tally.started:.1f} s: {text}")

    def stop() -> None:
        run.cancel()

    with ExitStack() as stack:
        stack.callback(progress.close)
        stack.enter_context(interrupts.listening(first=stop, at_once=progress.close))
        stack.enter_context(logging_to(progress, is_stopping=interrupts.stop.is_set))
        run = asyncio.create_task(asking.run(on_event=show_breaker))
        async with ticking(progress, asking.tally):
            await asyncio.wait([run])
    if not run.cancelled():
        run.result()
    ending = "finished" if interrupts.signal is None else "interrupted"
    report = asking.tally.report(now=loop.time(), ending=ending, budget_exhausted=False)
    return DemoRun(lines=asking.lines, report=report, ours=asking.ours, exit_code=interrupts.exit_code)
