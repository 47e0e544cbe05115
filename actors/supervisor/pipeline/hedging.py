"""An attempt, and a second call beside it if it takes unusually long; the first answer wins."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from actors.errors.families import CallFailed
from actors.policies.hedge import cancel_and_wait
from actors.providers.lazy_ranking import Remembered
from actors.supervisor.pipeline.attempt import AttemptRun
from actors.supervisor.pipeline.choosing import Choice, choose, names_in_order
from actors.supervisor.targets.admission import Admitted
from runtime import RuntimeFault

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.supervisor.pipeline.deps import Deps
    from actors.supervisor.pipeline.job import Job
    from actors.supervisor.targets.target import Target
    from actors.transports.transport import ProviderReply


async def attempt(deps: Deps, job: Job, choice: Choice) -> ProviderReply | None:
    """Make one attempt, hedged if that is worth it; None if the request may go on by another choice."""
    run = AttemptRun(deps, job, choice)
    begun = await (run.begin() if run.quota is None else run.begin_in_quota(run.quota))
    if not isinstance(begun, Admitted):
        return begun
    delay: float | None = None
    # The pieces of two answers must not mix.
    if deps.hedge_budget.config is not None and not begun.permit.probe and job.message.stream is None:
        delay = deps.hedge_budget.delay(job, run.target, begun.permit.admitted)
    return await run.call() if delay is None else await _with_second(run, delay)


async def _with_second(run: AttemptRun, delay: float) -> ProviderReply | None:
    """Make one call, and another beside it if it takes longer than `delay`; the first answer wins."""
    deps, job, target = run.deps, run.job, run.target
    loop, started = asyncio.get_running_loop(), deps.context.now()
    seconds: list[asyncio.Task[ProviderReply | None]] = []
    reply: ProviderReply | None = None
    scope = asyncio.timeout(None)
    waits = True

    def end_first() -> None:
        if waits:
            scope.reschedule(deps.context.now())

    try:
        with suppress(TimeoutError):
            async with scope:
                # The second call takes what it needs once its task has begun: if it never does, nothing is left.
                timer = loop.call_later(
                    delay, lambda: seconds.append(asyncio.create_task(_second(deps, job, target, end_first)))
                )
                try:
                    reply = await run.call()
                finally:
                    waits = False
                    timer.cancel()
        if reply is not None:
            job.last = target.name
        elif seconds:
            if scope.expired():
                # It was late, and would have been later still.
                deps.hedge_budget.learn(target, deps.context.now() - started)
            (reply,) = await asyncio.gather(*seconds)
    finally:
        await cancel_and_wait(seconds)
    return reply


async def _second(deps: Deps, job: Job, first: Target, end_first: Callable[[], None]) -> ProviderReply | None:
    """Call another provider; its answer ends the first call, and after its failure the first call is waited for."""
    budget = deps.hedge_budget
    if not budget.take(deps.context.now()):
        return None
    others = Remembered(
        name
        for name in names_in_order(job)
        if name != first.name and name not in job.tried and not job.candidates.listings[name].may_cost
    )
    choice = choose(job, others, deps.queues, now=deps.context.now())
    if (
        not isinstance(choice, Choice)
        or choice.admitted is None
        or choice.admitted.permit.probe
        or not _may_run_twice(choice.target)
    ):
        deps.queues.leave(job.entry)
        budget.give_back()
        return None
    run = AttemptRun(deps, job, choice)
    try:
        begun = await (run.begin() if run.quota is None else run.begin_in_quota(run.quota))
        reply = await run.call() if isinstance(begun, Admitted) else begun
    except CallFailed:
        return None
    if reply is not None:
        budget.won += 1
        job.last = choice.target.name
        end_first()
    return reply


def _may_run_twice(target: Target) -> bool:
    """Tell whether a call may be one of two; what its transport declares of that is known once it is open."""
    with suppress(CallFailed, RuntimeFault):
        target.open()
    return target.idempotent != "no" and not target.paid
