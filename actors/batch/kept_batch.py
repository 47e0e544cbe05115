"""A batch in the journal of its ledger: which run it is, and how each of its items has ended."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from actors.batch.outcomes import Done, Failed, Unknown
from actors.batch.resuming import (
    FINAL,
    REQUESTS,
    RUNS,
    ItemKeys,
    KeptAttempt,
    KeptDetails,
    KeptItem,
    KeptParked,
    KeptRun,
    attempts_of,
    cost_of,
    is_refused_by_budget,
    items_scope,
    key_to_ask,
    next_run,
    paid_in_vain,
)
from actors.errors.families import AllProvidersFailed, CallFailed, LedgerDown, NotAdmitted, Permanent
from actors.ledger.answers import decode, encode
from actors.ledger.beside import FindValue, KeepValue, LeaveAccount, all_heads
from actors.ledger.errors import JournalDown, JournalFailed
from actors.ledger.fingerprint import request_fields
from actors.ledger.keys import scoped_key
from actors.ledger.messages import AwaitCommit, FindKey, GetStatement
from actors.money import ZERO, micros_of
from actors.supervisor.messages import GetLedger, SmartResult
from actors.supervisor.payments.kept_answers import given_again
from actors.validation import check_text
from runtime import MailboxFull
from runtime.persistence import key_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.batch.outcomes import RequestOutcome
    from actors.ledger.statement import Statement
    from actors.supervisor.messages import SmartRequest
    from runtime import ActorRef

TIMEOUT = 60.0
"""Seconds that a ledger has to read what is kept of a run; it may still be reading its journal."""
PART = 100
"""The items whose digests are kept as one value: one of all would be as large as the largest answer."""
KNOWN_STATUSES = msgspec.msgpack.Decoder(KeptItem)
DETAILS = msgspec.msgpack.Decoder(KeptDetails)
RUN = msgspec.msgpack.Decoder(KeptRun)
encoded = msgspec.msgpack.Encoder().encode


class BatchJournal(msgspec.Struct, frozen=True):
    """Where a batch is kept, and what of it is done again: `path` is that of its ledger's journal.

    What was answered is never asked for again. With `retry_failed`, what has failed is; with `retry_unknown`, what may
    have been paid is paid again within its budget, if it cannot be found out, and so is what was paid and has no answer
    that could be had. `fresh` begins a new run, in which all is
    asked for, and paid, again.
    """

    path: str | os.PathLike[str]
    retry_failed: bool = False
    retry_unknown: bool = False
    fresh: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.path, str | os.PathLike) or not os.fspath(self.path):
            raise TypeError(f"journal must be the path of the ledger's journal, got {self.path!r:.100}")


class KeptBatch:
    """One run of a batch of this name. `heads` has what is kept of each item, by the digest of its key."""

    def __init__(
        self, ledger: ActorRef[Any], run: KeptRun, journal: BatchJournal, *, name: str, heads: dict[bytes, bytes]
    ) -> None:
        self.name = name
        self.run = run
        self.journal = journal
        self.scope = items_scope(run.account)
        self.ledger = ledger
        self._heads = heads
        self.keys = ItemKeys(run.id)
        self._loop = asyncio.get_running_loop()

    @property
    def is_resumed(self) -> bool:
        """Whether an item of the run has an outcome from before."""
        return bool(self._heads)

    def key_of(self, request: SmartRequest) -> str:
        """Return the key of an item's request; raises `Permanent` if it has no id, and is not data either."""
        id_of = request.idempotency_key or request.request_id
        if id_of is None:
            fields = sorted(request_fields(request.service, request.input, request.requirement))
            return self.keys.key(None, digest=self.keys.digest(encoded(fields)))
        return id_of if id_of.startswith(self.keys.prefix) else self.keys.key(id_of)

    def find(self, key: str) -> KeptItem | None:
        """Return how an item has ended; None if it has not."""
        head = self._heads.get(key_digest(self.scope, key)) if self._heads else None
        return None if head is None else KNOWN_STATUSES.decode(head)

    def is_over(self, item: KeptItem) -> bool:
        """Tell whether an item that has ended so is not asked for again."""
        is_asked_again = {"failed": self.journal.retry_failed, "paid": self.journal.retry_unknown}
        return item.status in FINAL and not is_asked_again.get(item.status)

    async def outcome(
        self, key: str, item: KeptItem, *, index: int, source: Any, request: SmartRequest
    ) -> RequestOutcome | None:
        """Return the outcome of an item that has ended; None if it is not kept any more, and has cost nothing.

        Raises a member of `CallFailed` if it was paid and its answer is not kept, or if it asks for something else now.
        """
        row = await self.ledger.ask(FindValue(self.scope, key), timeout=TIMEOUT)
        details = KeptDetails() if row is None or row.body is None else DETAILS.decode(row.body)
        if details.error is not None:
            return Failed(index, source, _read(details.error))
        if item.status in {"failed", "paid"}:
            return Failed(index, source, Permanent("it has failed, and the error is not kept any more"))
        output, translated = None, ()
        if details.output is not None:
            output, translated = _read(details.output)
        else:
            key = key_to_ask(key, item.revision)
            fields = request_fields(request.service, request.input, request.requirement)
            asked = FindKey(scoped_key(key, tenant=request.tenant, account=request.account), fields)
            status = await self.ledger.ask(asked, timeout=TIMEOUT)
            if status.receipt is None:
                return None
            given = given_again(status, status.receipt, key=key, asked=request.input)
            output, translated = given.output, given.translated
        return Done(
            index,
            source,
            SmartResult(
                output=output,
                provider=item.provider or "",
                cost=ZERO,
                paid=micros_of(item.cost),
                attempts=item.attempts,
                request_id=key,
                latency=details.latency,
                translated=translated,
                replayed=True,
                receipt="kept",
            ),
        )

    async def begin(self, key: str, item: KeptItem | None, request: SmartRequest) -> tuple[int, SmartRequest]:
        """Return the revision and the request of an item that is to be asked for, given how it has ended before."""
        revision = 1 if item is None else item.revision
        if item is not None and item.status in {"failed", "paid"}:
            # A new key, under which it is found out what became of the call if the program is killed meanwhile.
            revision += 1
            await self._tell(KeepValue(scope=self.scope, key=key, head=encoded(KeptItem("again", revision=revision))))
        changed: dict[str, Any] = {"idempotency_key": key_to_ask(key, revision)}
        if item is not None and item.status == "unknown" and self.journal.retry_unknown:
            changed |= {"on_unknown": "pay_again", "risk": None}
        return revision, msgspec.structs.replace(request, **changed)

    async def keep(self, key: str, outcome: RequestOutcome, *, started: float, revision: int) -> None:
        """Keep how an item has ended, which began at `started` by the clock of the loop."""
        now, loop_now = time.time(), self._loop.time()
        wall = now - loop_now
        if isinstance(outcome, Done):
            item, details = _kept_result(outcome.result, at=now, started=started, wall=wall)
        elif isinstance(outcome.error, JournalDown | JournalFailed | LedgerDown):
            return  # It has not ended by itself, and nothing can be kept now.
        else:
            item, details = _kept_failure(outcome, at=now, started=started, wall=wall)
            details = msgspec.structs.replace(details, latency=loop_now - started)
        if revision > 1:
            item = msgspec.structs.replace(item, revision=revision)
        await self._tell(KeepValue(scope=self.scope, key=key, head=encoded(item), body=encoded(details)))

    async def ask_anew(self, key: str) -> None:
        """Let an item be asked for under another key than before, whatever became of it."""
        before = self.find(key)
        head = encoded(KeptItem("again", revision=2 if before is None else before.revision + 1))
        self._heads[key_digest(self.scope, key)] = head
        await self._tell(KeepValue(scope=self.scope, key=key, head=head))

    async def requests(self) -> dict[str, bytes]:
        """Return what the items of the run asked for when it ran last, as digests by their keys."""
        parts = await self._parts()
        pairs = (msgspec.msgpack.decode(part, type=list[tuple[str, bytes]]) for part in parts)
        return {key: digest for pair in pairs for key, digest in pair}

    async def keep_requests(self, requests: Mapping[str, bytes], *, market: str) -> None:
        """Keep what the items of the run ask for, and a digest of what serves them; wait until it is on disk."""
        pairs = list(requests.items())
        parts = [encoded(pairs[start : start + PART]) for start in range(0, len(pairs), PART)]
        parts += [encoded([])] * (len(await self._parts()) - len(parts))
        for number, part in enumerate(parts):
            await self._tell(KeepValue(scope=self._requests_scope, key=str(number), head=part, for_ever=True))
        self.run = msgspec.structs.replace(self.run, requests=len(requests), market=market)
        await self._tell(KeepValue(scope=RUNS, key=self.name, head=encoded(self.run), for_ever=True))
        await self.ledger.ask(AwaitCommit(), timeout=TIMEOUT)

    @property
    def _requests_scope(self) -> str:
        return f"{REQUESTS}{self.run.account}"

    async def _parts(self) -> list[bytes]:
        return list((await all_heads(self.ledger, self._requests_scope, timeout=TIMEOUT)).heads.values())

    async def park(self, key: str, parked: KeptItem, *, why: Exception) -> None:
        """Keep until when an item is parked, and why."""
        body = encoded(KeptParked(key, f"{type(why).__name__}: {why}"))
        await self._tell(KeepValue(scope=self.scope, key=key, head=encoded(parked), body=body))

    async def leave(self) -> Statement:
        """Leave the account to the next time, and return its figures once all that was kept is on disk."""
        await self.ledger.send(LeaveAccount(self.run.account))
        statement: Statement = await self.ledger.ask(GetStatement(self.run.account), timeout=TIMEOUT)
        await self.ledger.ask(AwaitCommit(), timeout=TIMEOUT)
        return statement

    async def _tell(self, message: KeepValue) -> None:
        try:
            self.ledger.tell(message)
        except MailboxFull:
            await self.ledger.send(message)

    def __repr__(self) -> str:
        return f"<KeptBatch {self.run.id!r}, {len(self._heads)} items before>"


async def open_kept(supervisor: ActorRef[Any], journal: BatchJournal, *, name: str) -> KeptBatch:
    """Return the run of a batch of this name that its journal has, or a new one.

    Raises `ValueError` if the ledger of the supervisor has no journal, or another one.
    """
    check_text("account", name)
    ledger = await supervisor.ask(GetLedger(), timeout=TIMEOUT)
    runs = await all_heads(ledger, RUNS, timeout=TIMEOUT)
    if not _is_same(runs.path, journal.path):
        raise ValueError(
            f"journal is {os.fspath(journal.path)!r}, and the ledger of this supervisor has {runs.path!r}; "
            "give the batch the journal of its ledger"
        )
    head = runs.heads.get(key_digest(RUNS, name))
    run = None if head is None else RUN.decode(head)
    if run is None or journal.fresh:
        run = next_run(run, name=name, id=secrets.token_hex(8), now=time.time())
        ledger.tell(KeepValue(scope=RUNS, key=name, head=encoded(run), for_ever=True))
    items = await all_heads(ledger, items_scope(run.account), timeout=TIMEOUT)
    await ledger.ask(AwaitCommit(), timeout=TIMEOUT)  # Their receipts may have been written only in part.
    return KeptBatch(ledger, run, journal, name=name, heads=items.heads)


def _kept_result(result: SmartResult, *, at: float, started: float, wall: float) -> tuple[KeptItem, KeptDetails]:
    """Return what is kept of an answer: all of it but what its receipt has."""
    output: bytes | None = None
    if result.receipt != "kept":
        with suppress(TypeError):  # Then it is asked for again, or was paid and cannot be kept.
            output = encode((result.output, result.translated))
    attempts = attempts_of(result.failures, started=started, wall=wall)
    if not result.replayed:
        cost = int(result.cost) - sum(one.cost for one in attempts)
        began = max((one.began + one.latency for one in attempts), default=wall + started)
        attempts += (KeptAttempt(result.provider, round(began, 3), round(max(0.0, at - began), 6), cost=cost),)
    item = KeptItem("done", int(result.paid), result.provider, result.attempts, round(at, 3))
    return item, KeptDetails(attempts, result.latency, output=output)


def status_of(outcome: Failed | Unknown) -> Literal["failed", "paid", "budget", "unknown"]:
    """Return how an item has ended that was not answered."""
    if isinstance(outcome, Unknown):
        return "unknown"
    if paid_in_vain(outcome.error) is not None:
        return "paid"
    return "budget" if is_refused_by_budget(outcome.error) else "failed"


def _kept_failure(outcome: Failed | Unknown, *, at: float, started: float, wall: float) -> tuple[KeptItem, KeptDetails]:
    """Return what is kept of an item that was not answered."""
    error = outcome.error
    failures = error.attempts if isinstance(error, AllProvidersFailed) else ()
    status = status_of(outcome)
    content: bytes | None = None
    with suppress(TypeError):
        content = encode(error)
    if content is None:
        content = encode(CallFailed(f"{type(error).__name__}: {error}"))
    provider = error.provider if isinstance(error, CallFailed) else None
    attempts = attempts_of(failures, started=started, wall=wall)
    if not attempts and provider is not None and not isinstance(error, NotAdmitted):
        text = f"{type(error).__name__}: {error}"
        attempts = (KeptAttempt(provider, round(wall + started, 3), round(at - wall - started, 6), error=text),)
    item = KeptItem(status, int(cost_of(error)), provider, len(attempts), round(at, 3))
    return item, KeptDetails(attempts, error=content)


def cancelled_item(parked: KeptItem, *, at: float) -> tuple[bytes, bytes]:
    """Return what is kept, as head and body, of a parked item that is cancelled `at` a time: it never ran."""
    error = NotAdmitted("it was parked until a reset, and was cancelled; it never ran")
    head = KeptItem("failed", at=round(at, 3), revision=parked.revision)
    return encoded(head), encoded(KeptDetails(error=encode(error)))


def _read(content: bytes) -> Any:
    """Return what was kept; or the error that it cannot be read, for example because a class has gone."""
    try:
        return decode(content)
    except TypeError as error:
        raise Permanent(f"what is kept of this item cannot be read: {error}") from error


def _is_same(path: str, other: str | os.PathLike[str]) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)
