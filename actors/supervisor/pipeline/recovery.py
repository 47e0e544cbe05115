"""What a request does about a call that may have been paid: reconciled, repeated under its key, or left as unknown."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from actors.errors.families import CallFailed, OutcomeUnknown
from actors.ledger.messages import Reservation
from actors.supervisor.payments.held_call import HeldCall
from actors.supervisor.pipeline.tracing import begin_wait
from runtime import RuntimeFault

if TYPE_CHECKING:
    from actors.ledger.errors import StillUnsettled
    from actors.supervisor.pipeline.deps import Deps
    from actors.supervisor.pipeline.job import Job
    from actors.transports.transport import ProviderReply

SHORTEST_CALL = 0.01
"""Seconds that a call to take on has at least, however late it is."""


async def reconcile(deps: Deps, job: Job, error: CallFailed, *, wait: float = 0.0) -> ProviderReply | CallFailed:
    """Find out whether the call that may have been paid was; return its answer, or what the request goes on from.

    If that cannot be found out, it is `error` still. The call is passed over if the request's risk allows that. One
    that is taken up by its handle has `wait` seconds for its answer first.
    """
    held, now = job.held, deps.context.now()
    assert held is not None  # noqa: S101 - the caller has looked.
    may_go_on = job.may_pass_over(held.reservation)
    if now < job.deadline:
        until = now + wait if may_go_on else job.deadline
        if held.asked_after:
            until = now + (job.deadline - now) / 2  # What it cost is told some seconds later.
        waiting = None if job.trace is None else begin_wait(deps, job)
        try:
            found = await deps.payments.reconcile(held, until=until, wait=wait)
        finally:
            if waiting is not None:
                waiting.end(deps.context.now())
        if found is not None:
            return job.reconciled(found)
    may_be_repeated = job.repeats(held.target) and held.target.name not in job.tried
    if may_go_on and not may_be_repeated:
        deps.payments.reconcile_later(held)
        job.pass_over(held.reservation, held)
    return error


async def take_on(deps: Deps, job: Job, unsettled: StillUnsettled) -> ProviderReply | None:
    """Go on with a call that was held under this key, by an earlier run or by an instance that crashed.

    There are four cases:

    1. Its provider is not listed any more, and the request's risk allows to pass it over: it goes on elsewhere.
    2. What became of it can be found out, or it is taken up by its handle: its answer is the answer, and what it failed
       with is gone on from.
    3. It can be repeated under its key: it is the next choice.
    4. None of these: the request ends here.
    """
    target = job.candidates.targets.get(unsettled.at_provider)
    number, amount = unsettled.reservation, unsettled.amount
    reservation = Reservation(number, job.key, unsettled.at_provider, amount)
    if number in job.passed_over:
        # It was made by the terms of a listing that is never passed over.
        job.hold_again(number)
    elif unsettled.is_held and target is None and job.may_pass_over(reservation):
        job.pass_over(reservation, None)
        return None
    elif unsettled.is_held and target is not None:
        with suppress(CallFailed, RuntimeFault):
            target.open()  # Then it is known what its transport can do.
        quote = job.quote(target)
        left = max(job.deadline - deps.context.now(), SHORTEST_CALL)
        call = job.call_to(target, quote, timeout=left)
        call.notes.handle = unsettled.handle
        job.held = HeldCall(target, call, reservation, quote.tokens, purchase=job.purchase, paid_before=job.cost)
        if job.held.can_be_asked or (job.may_pass_over(reservation) and not job.repeats(target)):
            # It goes on where it was, so it has as long for its answer as a new one would have.
            wait = 0.0 if job.held.handle is None else min(job.candidates.listings[target.name].timeout, left)
            found = await reconcile(deps, job, unsettled, wait=wait)
            if not isinstance(found, CallFailed):
                job.last = target.name
                return found
        if job.held is None or job.repeats(target):
            return None
        deps.payments.reconcile_later(job.held)
        job.held = None
    if unsettled.is_held and job.held is None and number not in job.passed_over:
        job.kept_from_going_on = reservation
    raise job.failure(unsettled) from unsettled


async def recover_or_raise(deps: Deps, job: Job) -> ProviderReply | None:
    """Find out what became of a call that could not be repeated; raise if nothing more can be done."""
    failure = job.failure()
    if job.held is None:
        raise failure
    found = await reconcile(deps, job, failure)
    if not isinstance(found, CallFailed):
        return found
    if job.held is not None:
        raise failure
    return None


def unknown_outcome(name: str, error: CallFailed) -> OutcomeUnknown:
    """Say first of a failed call what its caller has to know first: that it may have been paid."""
    unknown = OutcomeUnknown(
        f"{name!r} may have been paid for a call that failed: {error}",
        provider=name,
        status=error.status,
        said=error.said,
    )
    unknown.limits, unknown.wire_calls, unknown.__cause__ = error.limits, error.wire_calls, error
    return unknown
