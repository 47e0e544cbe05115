"""Whether the item of a request is to blame for its failures, and how long it may take once it has hung."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from actors.supervisor.pipeline.again import is_at_work
from actors.supervisor.pipeline.poison import (
    HANG_FACTOR,
    MAX_SHARE_OF_HEALTHY,
    MAX_SHORT_TRIES,
    ItemFailure,
    chance_of,
    fails_alike_elsewhere,
    is_dead,
    is_evidence,
    is_suspect,
)
from actors.supervisor.targets.hanging import presumed_share
from actors.supervisor.targets.item_history import acquit, others_were_answered, shares_without
from actors.supervisor.targets.settlement import CLOCK_ERROR

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.supervisor.pipeline.job import Job
    from actors.supervisor.targets.item_history import ItemHistory
    from actors.supervisor.targets.settlement import EndedCall
    from actors.supervisor.targets.target import Target


def time_after_hanging(job: Job, target: Target, *, now: float) -> float:
    """Return the seconds for a call of an item that has hung where others do not: three times what is usual.

    It is infinity if the item has not hung, if it has hung three times and nothing shows that others do not, if other
    items fail here or there too, or if a call that is cut off may have been paid.
    """
    if not job.item_failures and not (job.under_way and job.beside is not None):
        return math.inf
    hung = [failure for failure in job.item_failures if failure.has_hung]
    if len(hung) >= MAX_SHORT_TRIES and not any(failure.was_overtaken for failure in hung):
        return math.inf
    hung_at = {failure.provider for failure in hung}
    if job.under_way and job.beside is not None:
        hung_at.add(job.beside)
    if not hung_at or job.repeats(target) or not target.may_cut(job.candidates.listings[target.name]):
        return math.inf
    shares = _shares(job, {*hung_at, target.name}, now=now)
    usual = max(target.state.limit.expected_latency, target.state.limit.present_latency)
    return HANG_FACTOR * usual if usual > 0 and max(shares.values()) <= MAX_SHARE_OF_HEALTHY else math.inf


def own_timeout(job: Job, target: Target, *, is_probe: bool) -> float:
    """Return the seconds for a call, apart from the deadline of its request and what the item has done elsewhere."""
    listing = job.candidates.listings[target.name]
    return listing.timeout if not is_probe and target.history.explores() else target.timeout(listing)


def judged(job: Job, target: Target, ended: EndedCall, *, started: float, was_hurried: bool) -> EndedCall:
    """Return how a call ended that began at `started`, with what that says of its item.

    It `was_hurried` if it was given less time because its item has hung elsewhere.
    """
    if ended.error is None:
        return ended
    if is_at_work(ended.error, target.idempotent):
        return msgspec.structs.replace(ended, is_blameless=True)
    stream, is_at_deadline = job.stream, ended.now >= job.deadline - CLOCK_ERROR
    if stream is not None and (
        stream.was_cut_short(ended.now, began=started) or (is_at_deadline and stream.was_coming(ended.now))
    ):
        # It is a limit of its request that was too short for it.
        return msgspec.structs.replace(ended, is_blameless=True)
    has_hung = ended.heard_at - started >= ended.own_timeout - CLOCK_ERROR and target.stragglers.has_overtaken(started)
    has_hung_alone = has_hung and _shares(job, (target.name,), now=ended.now)[target.name] <= MAX_SHARE_OF_HEALTHY
    if has_hung_alone:
        target.history.explore()
    is_blameless = is_item_to_blame(job, target, ended, started=started, was_hurried=was_hurried)
    others = (one.state.hanging for one in job.candidates.targets.values() if one is not target)
    presumed = presumed_share(target.history.answered, others)
    return msgspec.structs.replace(
        ended, is_blameless=is_blameless, has_hung_alone=has_hung_alone, presumed_to_hang=presumed
    )


def is_item_to_blame(job: Job, target: Target, ended: EndedCall, *, started: float, was_hurried: bool) -> bool:
    """Note a failure of a request, and return whether its item is to blame and not the provider.

    There are four cases: 1. It had little time because it has hung elsewhere. 2. Two failures alike stand at different
    providers already. 3. It is the failure by which the item becomes a dead letter. 4. It is the second failure alike,
    others were answered meanwhile, and the provider is healthy: it may be one that sees the bad items alone.
    """
    error, has_hung = ended.error, ended.heard_at - started >= ended.timeout - CLOCK_ERROR
    assert error is not None  # noqa: S101 - an answer blames nothing.
    had_little_time = has_hung and was_hurried
    if error.blames_provider and not had_little_time:
        target.history.add_failure(job.request_id, ended.now)
    if not is_evidence(error) or (has_hung and ended.now >= job.deadline - CLOCK_ERROR):
        return False
    was_alike = fails_alike_elsewhere(job.item_failures)
    was_overtaken = target.stragglers.has_overtaken(started)
    failure = ItemFailure(target.name, error.kind, target.history.answered, has_hung, was_overtaken)
    job.item_failures = failures = (*job.item_failures, failure)
    if len(failures) == 1:
        return had_little_time
    shares = _shares(job, {one.provider for one in failures}, now=ended.now)
    chance = chance_of(failures, shares)
    histories, answered = _failed_at(job)
    hurts_it_alone = others_were_answered(histories, answered)
    if is_dead(chance) and (hurts_it_alone or not any(history.has_unconfirmed for history in histories)):
        job.chance = chance
        acquit(job.request_id, histories, answered)
        return True
    if not (is_suspect(failures) and hurts_it_alone):
        return was_alike or had_little_time
    for history in histories:
        history.excuse(job.request_id)
    return was_alike or had_little_time or shares[target.name] <= MAX_SHARE_OF_HEALTHY


def end_trial(job: Job, *, is_answered: bool) -> None:
    """Count the failures of an item that was answered after all, and forget those of one that was suspected to the end.

    An item that was found to be bad is forgotten already.
    """
    if job.item_failures and job.chance is None:
        for history in _failed_at(job)[0]:
            history.accuse(job.request_id)
        if not is_answered and is_suspect(job.item_failures):
            acquit(job.request_id, *_failed_at(job))


def _failed_at(job: Job) -> tuple[list[ItemHistory], list[int]]:
    """Return the histories that the item failed in, and how many calls each provider had answered at its first one."""
    first = {one.provider: one.answered for one in reversed(job.item_failures)}
    return [job.candidates.targets[name].history for name in first], list(first.values())


def _shares(job: Job, names: Iterable[str], *, now: float) -> dict[str, float]:
    """Return for each of these providers the share of other items that failed there lately."""
    return shares_without(job.request_id, {name: job.candidates.targets[name].history for name in names}, now=now)
