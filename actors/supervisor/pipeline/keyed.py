"""A request under its caller's key: paid once, and answered again from the receipt of the first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from actors.errors.families import CallFailed, LedgerDown, NotAdmitted, StreamCut
from actors.ledger.errors import AlreadyPaid, JournalFailed, KeyReused
from actors.ledger.fingerprint import differing_names, request_fields
from actors.ledger.receipt import Purchase
from actors.money import ZERO
from actors.supervisor.messages import SmartResult
from actors.supervisor.payments.kept_answers import cut_of, failure_of, given_again
from actors.supervisor.payments.kept_pieces import given_pieces
from actors.supervisor.pipeline.pipeline import serve

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.ledger.fingerprint import Fields
    from actors.ledger.receipt import KeyStatus, Receipt
    from actors.supervisor.pipeline.deps import Deps
    from actors.supervisor.pipeline.job import Job
    from actors.supervisor.pipeline.joining import KeyedCall


async def serve_keyed(deps: Deps, job: Job) -> SmartResult:
    """Return the answer to a request under a key, which is served once for all that ask for it at the same time.

    Raises a member of `CallFailed`. A request that is to be paid again is served alone.
    """
    message = job.message
    fields = request_fields(message.service, message.input, message.requirement)
    call = None if message.repurchase else await deps.keyed.under_way(job.key)
    if call is None:
        call = deps.keyed.begin(
            job, lambda call: _by_receipt(deps, call, fields), fields=fields, is_alone=message.repurchase
        )
    elif call.fields != fields:
        raise KeyReused(job.asked_key, fields=differing_names(fields, call.fields))
    return await call.answer(job)


async def serve_to_the_end(deps: Deps, job: Job) -> SmartResult:
    """Return the answer to a stream without a key, which goes on to its end if its consumer leaves."""
    return await deps.keyed.begin(job, lambda call: serve(deps, call.job), is_alone=True).answer(job)


async def _by_receipt(deps: Deps, call: KeyedCall, fields: Fields) -> SmartResult:
    """Return the answer to a request under a key, by its receipt if there is one; raises a member of `CallFailed`.

    There are three cases: 1. It was answered, or failed and was charged: that is given again, at no cost. 2. It is to
    be paid again. 3. It was not paid yet.
    """
    job = call.job
    status = await _find(deps, job, fields)
    receipt, number = status.receipt, 1
    if not job.message.repurchase:
        if receipt is not None:
            return await _give_again(deps, job, status, receipt)  # 1.
    elif status.is_paid:
        number = 2 if receipt is None else receipt.purchase.number + 1  # 2.
    job.buy(Purchase(job.key, status.fingerprint, number))
    try:
        return await _with_receipt(deps, job, await _serve(deps, job, call))  # 3.
    except AlreadyPaid:
        status = await _find(deps, job, fields)
        if number == 1 and status.receipt is not None:
            return await _give_again(deps, job, status, status.receipt)  # Another supervisor has paid it meanwhile.
        raise


async def _find(deps: Deps, job: Job, fields: Fields) -> KeyStatus:
    return await deps.payments.find_key(job.key, fields, until=job.deadline)


async def _serve(deps: Deps, job: Job, call: KeyedCall) -> SmartResult:
    """Serve a request that is not paid yet; what it fails with is kept if that has cost something.

    If it fails by limits of the asker on whose money it draws, it goes on by those of another that asks for it. If it
    was given more time meanwhile, a wait that has ended with the earlier deadline begins anew.
    """
    failure: CallFailed | None = None
    try:
        while True:
            deadline = job.deadline
            try:
                return await serve(deps, job)
            except CallFailed as error:
                following = call.goes_on_after(error)
                if following is None and not (isinstance(error, NotAdmitted) and job.deadline > deadline):
                    failure = error
                    raise
                deps.queues.leave(job.entry)
                if following is None:
                    job.go_on(job.message, risk=job.risk)
                else:
                    job.go_on(call.message_of(following), risk=following.risk)
    finally:
        # Also if it is cancelled: what it had paid for by then is known.
        _keep_failure(deps, job, failure or job.charged_error)


async def _with_receipt(deps: Deps, job: Job, result: SmartResult) -> SmartResult:
    """Return a result once its receipt is written, or with the word that it could not be."""
    if not result.cost:
        return result
    return msgspec.structs.replace(result, receipt=await _written(deps, job))


async def _written(deps: Deps, job: Job) -> Literal["kept", "lost"]:
    """Wait until what the ledger knows is written, and tell whether it could be."""
    try:
        await deps.payments.await_commit(until=job.deadline)
    except (JournalFailed, LedgerDown):
        return "lost"
    return "kept"


def _keep_failure(deps: Deps, job: Job, failure: CallFailed | None) -> None:
    """Keep the error of a request that has paid for it, and may not have paid for anything else.

    A stream that was given up before anything came has none.
    """
    if job.purchase is None or not job.cost or job.possible_charges():
        return
    if failure is not None:
        kept = failure_of(job.purchase, job.with_charges(failure), paid=job.cost)
        deps.payments.keep_failure(kept, provider=failure.provider or job.last)
    elif job.shared is not None and not job.has_kept_cut:
        kept = cut_of(job.purchase, None, why="its consumer had left", paid_before=job.cost)
        deps.payments.keep_failure(kept, provider=job.last)


async def _give_again(deps: Deps, job: Job, status: KeyStatus, receipt: Receipt) -> SmartResult:
    """Give an answer again that was paid before, piece by piece if it is to be a stream.

    Raises the error that was paid for instead; of a stream that ended early, what came is given first.
    """
    asked = job.message.input
    try:
        given = given_again(status, receipt, key=job.asked_key, asked=asked)
    except StreamCut as cut:
        await _put_all(deps, job, cut.pieces)
        raise
    if job.message.stream is not None:
        await _put_all(deps, job, given_pieces(given.kept, given.output, asked=asked))
    written = await _written(deps, job)  # The first asker may still wait for that, or have been told that it failed.
    return SmartResult(
        output=given.output,
        provider=receipt.provider,
        cost=ZERO,
        paid=receipt.cost,
        replayed=True,
        receipt=written,
        attempts=0,
        request_id=job.request_id,
        latency=deps.context.now() - job.started,
        translated=given.translated,
    )


async def _put_all(deps: Deps, job: Job, pieces: Iterable[Any]) -> None:
    terms = job.message.stream
    if terms is not None:
        for piece in pieces:
            await terms.put(piece, deps.market.streams)
