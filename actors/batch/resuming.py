"""What a batch keeps on disk, and what follows from it for the next time that the batch is run. Pure.

A batch has a name, and each of its runs an id. An item has a key in the run; what came of it is kept under that key.
"""

from __future__ import annotations

import re
from collections import Counter
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from actors.errors.families import AllProvidersFailed, BudgetExceeded
from actors.ledger.errors import AlreadyPaid
from actors.money import ZERO, Micros

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from actors.errors.families import Attempt

RUNS = "\0runs"
"""The scope in the journal that has the newest run of each batch, under the name of the batch."""
ITEMS = "\0items of "
"""How the scope begins that has the outcomes of a run's items; the name of its account follows."""
DEFAULT_NAME = "batch"
"""The name of a batch that is given none."""
REQUESTS = "\0requests of "
"""How the scope begins that has what the items of a run ask for, as digests."""
DIGEST_BYTES = 10
NUMBER = re.compile(r"-?\d+")

ItemStatus: TypeAlias = Literal["done", "failed", "paid", "budget", "unknown", "again", "parked"]
"""How an item has ended: "budget" if there was not enough money left for it, "unknown" if it may have been paid.

"paid" is one that was paid, and whose answer cannot be had. "again" is one that is to be asked for anew, whatever
became of it before, and "parked" one that waits for a reset.
"""
FINAL = frozenset({"done", "failed", "paid"})
"""What an item that has ended so is not asked for again."""


class KeptRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run of a batch: its id, the how manyth it is, its account at the ledger, and when it began (since 1970).

    `requests` are the items that it has in all, if that is known, and `market` is a digest of what serves them.
    """

    id: str
    number: int = 1
    account: str
    began: float
    requests: int | None = None
    market: str = ""


class KeptItem(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How an item has ended: what it cost (micro-units), the provider, its calls, and when (seconds since 1970).

    `revision` counts how often it was asked for anew, each time under a key of its own. One that is parked is asked for
    again at `until`, in seconds since 1970, and is so since `at`.
    """

    status: ItemStatus
    cost: int = 0
    provider: str | None = None
    attempts: int = 0
    at: float = 0.0
    revision: int = 1
    until: float = 0.0


class KeptAttempt(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One call of an item: its provider, when it began (since 1970), its seconds, what it cost and how it failed.

    It had `waited` for so many seconds before, since the call before it or the item's beginning; the seconds of an
    answer have its wait in them.
    """

    provider: str
    began: float
    latency: float
    waited: float = 0.0
    cost: int = 0
    error: str | None = None


class KeptDetails(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The rest of how an item has ended: its calls, its seconds, and what its ledger has no receipt of, encoded."""

    attempts: tuple[KeptAttempt, ...] = ()
    latency: float = 0.0
    error: bytes | None = None
    output: bytes | None = None


class KeptParked(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is kept of an item while it is parked, so that a person can tell it: its key, and why it is parked."""

    key: str
    why: str


def next_run(last: KeptRun | None, *, name: str, id: str, now: float) -> KeptRun:  # noqa: A002
    """Return a new run of a batch.

    >>> first = next_run(None, name="batch", id="a1", now=0.0)
    >>> first.account, next_run(first, name="batch", id="b2", now=1.0).account
    ('batch', 'batch 2')
    """
    number = 1 if last is None else last.number + 1
    return KeptRun(id=id, number=number, account=name if number == 1 else f"{name} {number}", began=now)


def items_scope(account: str) -> str:
    """Return the scope of the outcomes of a run that has this account."""
    return f"{ITEMS}{account}"


def key_of_id(id: str | int) -> str:  # noqa: A002
    """Return the key of an item that has an id; no two ids have one in common, be they texts or numbers.

    >>> [key_of_id(one) for one in (7, "7", "seven", "'7", "=7")]
    ['7', "'7", 'seven', "''7", "'=7"]
    """
    if isinstance(id, int):
        return str(id)
    return f"'{id}" if id.startswith(("'", "=")) or NUMBER.fullmatch(id) else id


class ItemKeys:
    """Gives each item of a run its key: by its id, else by what it asks for, and how often that has come before.

    >>> keys = ItemKeys("a1")
    >>> keys.key("order 17"), keys.key(None, digest=b"x"), keys.key(None, digest=b"x")
    ('a1/order 17', 'a1/=78.1', 'a1/=78.2')
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.prefix = f"{run_id}/"
        """How the keys of all items begin."""
        self._seen: Counter[bytes] = Counter()

    def key(self, id: str | int | None, *, digest: bytes = b"") -> str:  # noqa: A002
        """Return the key of the next item; `digest` is of what it asks for, and only counts if it has no id."""
        if id is not None:
            return self.prefix + key_of_id(id)
        self._seen[digest] += 1
        return f"{self.prefix}={digest.hex()}.{self._seen[digest]}"

    def digest(self, content: bytes) -> bytes:
        """Return a digest of what an item asks for, which tells nothing of it without the id of the run."""
        return blake2b(content, key=self.run_id.encode(), digest_size=DIGEST_BYTES).digest()

    def __repr__(self) -> str:
        return f"<ItemKeys of {self.run_id!r}>"


def key_to_ask(key: str, revision: int) -> str:
    """Return under which key an item is asked for: its own, or another if it is asked for anew.

    >>> key_to_ask("a1/order 17", 1), key_to_ask("a1/order 17", 2)
    ('a1/order 17', '2 of a1/order 17')
    """
    return key if revision == 1 else f"{revision} of {key}"


class Changes(msgspec.Struct, frozen=True):
    """The items, by their keys, in which a batch differs from what it was when it ran before."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


def changes_between(before: Mapping[str, bytes], now: Mapping[str, bytes]) -> Changes:
    """Return what has changed from some items to others; each mapping has what they ask for, as digests, by key.

    >>> changes_between({"a": b"1", "b": b"2"}, {"b": b"3", "c": b"4"})
    Changes(added=('c',), removed=('a',), changed=('b',))
    """
    return Changes(
        tuple(key for key in now if key not in before),
        tuple(key for key in before if key not in now),
        tuple(key for key, digest in now.items() if before.get(key, digest) != digest),
    )


def is_refused_by_budget(error: Exception) -> bool:
    """Tell whether an item has failed because a budget had too little left for it, or for one more call."""
    refusals = (error, *error.refused) if isinstance(error, AllProvidersFailed) else (error,)
    return any(isinstance(one, BudgetExceeded) for one in refusals)


def paid_in_vain(error: Exception) -> AlreadyPaid | None:
    """Return the error that says that an item was paid, and that its answer cannot be had; None if it does not."""
    refusals = (error, *error.refused) if isinstance(error, AllProvidersFailed) else (error,)
    return next((one for one in refusals if isinstance(one, AlreadyPaid) and one.charged == "yes"), None)


def attempts_of(failures: Sequence[Attempt], *, started: float, wall: float) -> tuple[KeptAttempt, ...]:
    """Return failed calls as they are kept; `started` is when their item began, by the clock of the loop.

    `wall` is what to add to that clock for seconds since 1970.
    """
    kept: list[KeptAttempt] = []
    for one in failures:
        error = f"{one.kind}: {one.said or one.error}"
        waited = max(0.0, round(one.started - started, 6))
        kept.append(KeptAttempt(one.provider, round(wall + one.started, 3), one.latency, waited, int(one.cost), error))
        started = one.started + one.latency
    return tuple(kept)


def cost_of(error: Exception) -> Micros:
    """Return what an item that has failed is known to have cost."""
    if (paid := paid_in_vain(error)) is not None:
        return paid.paid
    attempts: Iterable[Attempt] = error.attempts if isinstance(error, AllProvidersFailed) else ()
    return sum((one.cost for one in attempts), ZERO)
