"""An attempt, and a second call beside it if it takes unusually long; the first answer wins."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Self

from actors.errors.families import CallFailed
from actors.policies.hedge import cancel_and_wait
from actors.providers.lazy_ranking import Remembered
from actors.supervisor.pipeline.attempt import AttemptRun
from actors.supervisor.pipeline.choosing import Choice, choose, names_in_order
from actors.supervisor.targets.admission import Admitted
from runtime import RuntimeFault

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from actors.supervisor.pipeline.deps import Deps
    from actors.supervisor.pipeline.job import Job
    from actors.supervisor.targets.target import Target
    from actors.transports.transport import ProviderReply
    from runtime import DeadlineWatch


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


class LateCall:
    """Watches a first call while it is under way, as a block: has a second made if it is late, which may end the first.

    It does what a timer and `asyncio.timeout` do at a tenth of the cost, because nearly every call is in time.
    `make_second` is given the function by which the second call ends the first; the block is then left at once.
    """

    __slots__ = (
        "_cancelling",
        "_context",
        "_is_over",
        "_make_second",
        "_task",
        "_watch",
        "deadline",
        "has_ended_first",
        "seconds",
        "tick",
    )

    def __init__(
        self,
        watch: DeadlineWatch,
        late_at: float,
        make_second: Callable[[Callable[[], None]], Coroutine[Any, Any, ProviderReply | None]],
    ) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs the code of a request in a task.
        self.deadline, self.tick = late_at, 0
        """When the call is late, in loop time."""
        self.seconds: list[asyncio.Task[ProviderReply | None]] = []
        """The second call, if there is one."""
        self.has_ended_first = False
        self._watch, self._make_second = watch, make_second
        self._task, self._cancelling = task, task.cancelling()
        self._context = copy_context()
        self._is_over = False

    def expire(self) -> None:
        """Make the second call. It takes what it needs once its task has begun: if it never does, nothing is left."""
        self.seconds.append(asyncio.create_task(self._make_second(self._end_first), context=self._context))

    def _end_first(self) -> None:
        if not (self._is_over or self.has_ended_first):
            self.has_ended_first = True
            self._task.cancel()

    def __enter__(self) -> Self:
        self._watch.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self._is_over = True
        self._watch.discard(self)
        if not self.has_ended_first:
            return False
        # If its caller was cancelled too, that goes on.
        return self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError


async def _with_second(run: AttemptRun, delay: float) -> ProviderReply | None:
    """Make one call, and another beside it if it takes longer than `delay`; the first answer wins."""
    deps, job, target = run.deps, run.job, run.target
    started = deps.context.now()
    reply: ProviderReply | None = None
    watch = deps.hedge_budget.watch(asyncio.get_running_loop())
    late = LateCall(watch, started + delay, lambda end_first: _second(deps, job, target, end_first))
    try:
        with late:
            reply = await run.call()
        if reply is not None:
            job.last = target.name
        elif late.seconds:
            if late.has_ended_first:
                # It was late, and would have been later still.
                deps.hedge_budget.learn(target, deps.context.now() - started)
            (reply,) = await asyncio.gather(*late.seconds)
    finally:
        if late.seconds:
            await cancel_and_wait(late.seconds)
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
