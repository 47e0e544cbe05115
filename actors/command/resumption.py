"""What a run would do with the journal of an earlier one: what it leaves out, what it asks for, why it would refuse."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from actors.batch.resuming import (
    FINAL,
    REQUESTS,
    RUNS,
    Changes,
    ItemKeys,
    KeptItem,
    KeptRun,
    changes_between,
    items_scope,
)
from actors.command.going_on import BATCH, MAX_LISTED, wanted_requests
from actors.ledger.reading import view
from actors.money import ZERO, Micros
from runtime.persistence import Owner, key_digest, owner_of, reading

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from actors.command.requests_file import RequestLine

PAIRS = msgspec.msgpack.Decoder(list[tuple[str, bytes]])
RUN = msgspec.msgpack.Decoder(KeptRun)
ITEM = msgspec.msgpack.Decoder(KeptItem)


class Resumption(msgspec.Struct, frozen=True, kw_only=True):
    """What a run would do with what is kept: of its requests, those to `ask` for, and how many are `over`, by how.

    `unknown` of those to ask for may have been paid. `spent` and `held` are of the run so far. It would be refused
    because of the `owner` of the journal, and, unless `--accept-changes` is given, because of what has changed.
    """

    asks: tuple[bool, ...]
    over: dict[str, int]
    unknown: int
    spent: Micros
    held: Micros
    changes: Changes
    has_other_market: bool
    owner: Owner | None
    prefix: str

    def refusals(self) -> Iterable[str]:
        """Yield why a run would be refused."""
        if self.owner is not None:
            yield f"the journal is in use by {self.owner}"
        cut = len(self.prefix)
        for what in ("added", "removed", "changed"):
            keys: Sequence[str] = getattr(self.changes, what)
            if keys:
                names = ", ".join(key[cut:] for key in keys[:MAX_LISTED]) + (", ..." if len(keys) > MAX_LISTED else "")
                many = "1 request was" if len(keys) == 1 else f"{len(keys)} requests were"
                yield f"since the run began, {many} {what} ({names}); it needs --accept-changes"
        if self.has_other_market:
            yield "since the run began, the market file was changed; it needs --accept-changes"


def read_resumption(path: str, lines: Sequence[RequestLine], *, market: str) -> Resumption | None:
    """Return what a run of these requests would do with a journal; None if no run is kept there.

    `market` is the digest of the market file. Raises `JournalError`.
    """
    owner = owner_of(path)
    with reading(path) as store:
        head = store.heads(RUNS).get(key_digest(RUNS, BATCH))
        if head is None:
            return None
        run = RUN.decode(head)
        kept = store.heads(items_scope(run.account))
        parts = store.heads(f"{REQUESTS}{run.account}").values()
        book = view(store, owner=owner)
    before = {key: digest for part in parts for key, digest in PAIRS.decode(part)}
    keys = ItemKeys(run.id)
    wanted, digests = wanted_requests(lines, keys)
    changes = Changes() if run.requests is None else changes_between(before, digests)
    anew, over, asks, unknown = frozenset(changes.changed), Counter[str](), list[bool](), 0
    for one in wanted:
        head = kept.get(key_digest(items_scope(run.account), one.key))
        status = None if head is None or one.key in anew else ITEM.decode(head).status
        asks.append(status not in FINAL)
        if status in FINAL:
            over[status] += 1
        unknown += status == "unknown"
    statement = next((one for one in book.accounts if one.name == run.account), None)
    return Resumption(
        asks=tuple(asks),
        over=dict(over),
        unknown=unknown,
        spent=ZERO if statement is None else statement.settled,
        held=ZERO if statement is None else statement.held + statement.reserved,
        changes=changes,
        has_other_market=run.requests is not None and run.market != market,
        owner=owner,
        prefix=keys.prefix,
    )
