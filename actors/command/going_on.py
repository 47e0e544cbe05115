"""How a run that is kept goes on: what has changed since, what is over, and what is still to be asked for.

The journal is what counts. The results file is brought in line with it: of each request that is over it has one line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec

from actors.batch.kept_batch import BatchJournal, KeptBatch, open_kept
from actors.batch.outcomes import Failed
from actors.batch.resuming import ItemKeys, changes_between
from actors.command.bad_input import BadInput
from actors.command.kept_output import kept_output
from actors.command.results_file import result_line
from actors.errors.families import CallFailed, Permanent
from actors.ledger.messages import GetStatement
from actors.money import ZERO, Micros, micros_of
from actors.supervisor.messages import SmartRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from actors.batch.resuming import KeptItem
    from actors.command.plan import Options, Plan
    from actors.command.report import RunTally
    from actors.command.requests_file import RequestLine
    from actors.command.results_file import LineStatus, OutputFile
    from runtime import ActorRef

BATCH = "batch"
"""The name of the run in its journal, and of the account that `--budget` caps."""
STATEMENT_TIMEOUT = 60.0
"""Seconds that the ledger has to tell what was spent."""
MAX_LISTED = 5
"""The requests that are named of those that have changed in one way."""


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """A request of the file, with its key in the run."""

    key: str
    line: RequestLine

    def request(self, options: Options, *, account: str | None = None) -> SmartRequest:
        """Return what the supervisor is asked; `account` is that of a run that is kept."""
        line = self.line
        return SmartRequest(
            service=line.service,
            input=line.input,
            timeout=line.timeout or options.timeout,
            budget=line.budget,
            risk=line.risk,
            where=line.where,
            strategies=options.strategies,
            health_check=options.health_check,
            request_id=self.key,
            idempotency_key=None if account is None else self.key,
            account=account,
        )


def wanted_requests(lines: Iterable[RequestLine], keys: ItemKeys) -> tuple[list[Wanted], dict[str, bytes]]:
    """Return the requests of a file with their keys, and what they ask for, as digests by their keys."""
    wanted, digests = list[Wanted](), dict[str, bytes]()
    for line in lines:
        digest = keys.digest(line.content)
        key = keys.key(line.own_id, digest=digest)
        digests[key] = digest
        wanted.append(Wanted(key, line))
    return wanted, digests


async def go_on(
    supervisor: ActorRef[Any], plan: Plan, results: OutputFile, tally: RunTally
) -> tuple[KeptBatch, list[Wanted]]:
    """Return the run that the journal has, or a new one, and the requests that are not over, whose lines are missing.

    Those that are over are counted in `tally`. Raises `BadInput` if it must not go on as it is, and `CannotWrite`.
    """
    options = plan.options
    kept = await _open(supervisor, options)
    wanted, digests = wanted_requests(plan.requests, kept.keys)
    await _note_requests(kept, plan, digests)
    over: dict[str, KeptItem] = {}
    for one in wanted:
        ended = kept.find(one.key)
        if ended is not None and kept.is_over(ended):
            over[one.key] = ended
    output = kept_output(results.read(), prefix=kept.keys.prefix, over=over)
    if output.foreign and not (results.overwrite or options.fresh):
        raise BadInput(
            f"{results.option}: {results.path} has {output.foreign} lines that are not of the run in "
            f"{options.journal}; name another file, or add --overwrite"
        )
    results.begin(output.content)
    without_line = {key: one for key, one in over.items() if key not in output.keys}
    missing = await _write_missing(kept, wanted, without_line, plan, results)
    for key, ended in over.items():
        status = missing.get(key, ended.status)
        if status is not None:
            tally.note_before(cast("LineStatus", status))
    tally.spent_before, _ = await _money(kept)
    return kept, [one for one in wanted if missing.get(one.key, over.get(one.key)) is None]


async def _open(supervisor: ActorRef[Any], options: Options) -> KeptBatch:
    """Return the run to go on with; a new one if that was said, twice if money was spent in the last."""
    journal = BatchJournal(
        options.journal or "", retry_failed=options.retry_failed, retry_unknown=options.retry_unknown
    )
    kept = await open_kept(supervisor, journal, name=BATCH)
    if not options.fresh:
        return kept
    spent, held = await _money(kept)
    if (spent or held) and options.fresh == 1:
        raise BadInput(
            f"--fresh: {spent} was spent in the run that {options.journal} has, and {held} is held; leave the option "
            "out to go on with it, or say --fresh twice to ask for everything again, and pay for it again"
        )
    return await open_kept(supervisor, msgspec.structs.replace(journal, fresh=True), name=BATCH)


async def _money(kept: KeptBatch) -> tuple[Micros, Micros]:
    """Return what the run has spent, and what is held of it."""
    try:
        statement = await kept.ledger.ask(GetStatement(kept.run.account), timeout=STATEMENT_TIMEOUT)
    except Permanent:
        return ZERO, ZERO  # It has no account yet, because nothing was asked for.
    return statement.settled, statement.held


async def _note_requests(kept: KeptBatch, plan: Plan, digests: Mapping[str, bytes]) -> None:
    """Keep what is asked for; raises `BadInput` if that has changed since the last time, and it was not accepted."""
    options, last = plan.options, kept.run
    if last.requests is not None:
        before = await kept.requests()
        changes, has_other_market = changes_between(before, digests), last.market != plan.market_digest
        if not changes and not has_other_market:
            return
        if not options.accept_changes:
            cut = len(kept.keys.prefix)
            listed = [
                _listed(name, [key[cut:] for key in keys])
                for name, keys in (("added", changes.added), ("removed", changes.removed), ("changed", changes.changed))
                if keys
            ]
            if has_other_market:
                listed.append("the market file is another one")
            raise BadInput(
                f"the run in {options.journal} was begun with something else: {'; '.join(listed)}. Add "
                "--accept-changes to go on with what is asked for now, in which a changed request is paid again; or "
                "name another --out"
            )
        for key in changes.changed:
            await kept.ask_anew(key)
    await kept.keep_requests(digests, market=plan.market_digest)


def _listed(what: str, keys: Sequence[str]) -> str:
    names = ", ".join(keys[:MAX_LISTED]) + (", ..." if len(keys) > MAX_LISTED else "")
    return f"{len(keys)} {'request was' if len(keys) == 1 else 'requests were'} {what} ({names})"


async def _write_missing(
    kept: KeptBatch, wanted: Iterable[Wanted], missing: Mapping[str, KeptItem], plan: Plan, results: OutputFile
) -> dict[str, LineStatus | None]:
    """Write the lines that are missing of requests that are over; return the status of each by its key.

    It is None for one that is kept no more, and was free.
    """
    written: dict[str, LineStatus | None] = {}
    for one in wanted if missing else ():
        ended = missing.get(one.key)
        if ended is None:
            continue
        request = one.request(plan.options, account=kept.run.account)
        try:
            outcome = await kept.outcome(one.key, ended, index=0, source=request, request=request)
        except CallFailed as error:
            outcome = Failed(0, request, error)
        if outcome is None:
            written[one.key] = None
            continue
        cost = micros_of(ended.cost)
        line = result_line(one.line.own_id, outcome, cost=cost, attempts=ended.attempts, key=one.key)
        await results.put(line)
        written[one.key] = line.status
    return written
