"""Waiting for the first of several shared quotas, and for all else that may serve the request meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from actors.policies.hedge import cancel_and_wait
from actors.supervisor.pipeline.choosing import QuotaWait, choose, names_in_order
from actors.supervisor.pipeline.shared_quota import acquire
from actors.supervisor.pipeline.waiter_limit import check_is_let_wait
from actors.supervisor.targets.waiting import Wait

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.supervisor.pipeline.choosing import Choice
    from actors.supervisor.pipeline.deps import Deps
    from actors.supervisor.pipeline.job import Job
    from actors.supervisor.pipeline.shared_quota import QuotaShare


async def wait_for_share(deps: Deps, job: Job, wait: QuotaWait) -> Choice | None:
    """Return the choice that the first quota allows which has something left; None to choose anew.

    The request keeps its place in each quota as long as no other provider can be called.
    """
    asked: dict[asyncio.Task[QuotaShare | None], Choice] = {}
    granted: Choice | None = None
    try:
        for choice in wait.choices:
            name = choice.target.name
            quota = job.candidates.listings[name].quota
            assert quota is not None  # noqa: S101 - nothing else is short of one.
            asking = asyncio.create_task(acquire(deps, job, name, quota, at_once=False))
            asking.add_done_callback(lambda _: job.entry.wake())
            asked[asking] = choice
        await _any_is_done_or_choice(deps, job, wait, asked)
        for asking, choice in asked.items():
            if granted is None and asking.done() and (share := asking.result()) is not None:
                granted = msgspec.structs.replace(choice, share=share)
    finally:
        try:
            await cancel_and_wait(list(asked))
        except asyncio.CancelledError:
            granted = None
            raise
        finally:
            _give_back_all_but(None if granted is None else granted.share, asked)
    return granted


async def _any_is_done_or_choice(
    deps: Deps, job: Job, wait: QuotaWait, asked: Iterable[asyncio.Task[QuotaShare | None]]
) -> None:
    """Wait until a quota was granted or refused, another provider may be called, or none, or its class has changed."""
    besides, priority = wait.besides, job.entry.priority
    while True:
        await deps.queues.wait(job.entry, besides)
        now = deps.context.now()
        check_is_let_wait(deps, job)
        job.money = job.money.after_wait(now=now)
        if any(asking.done() for asking in asked) or job.entry.priority != priority:
            return
        again = choose(job, names_in_order(job), deps.queues, now=now)
        if isinstance(again, QuotaWait) and again.names == wait.names:
            besides = again.besides
        elif isinstance(again, Wait):
            besides = again
        else:
            return


def _give_back_all_but(kept: QuotaShare | None, asked: Iterable[asyncio.Task[QuotaShare | None]]) -> None:
    for asking in asked:
        share = None if asking.cancelled() or asking.exception() else asking.result()
        if share is not None and share is not kept:
            share.give_back()
