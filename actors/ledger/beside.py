"""The messages by which a program keeps values in a ledger's journal, beside the money that they are about.

They share the journal's commits, so that what was told after a payment is never on disk without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from actors.validation import check_text
from runtime import Message, Request
from runtime.persistence import KeptRow

if TYPE_CHECKING:
    from runtime import ActorRef

MAX_LISTED = 1_000
"""The heads that are listed at once, about a millisecond's work."""


class KeepValue(Message, frozen=True, kw_only=True):
    """Keep a value under a key of a scope, in place of what was there; it is written with the next commit.

    The `head` is short, and can be listed; the `body` is dropped when answers are (`answers_for` of `LedgerConfig`),
    and the head when keys are, unless it is `for_ever`. Without a journal, nothing is kept.
    """

    scope: str
    key: str
    head: bytes
    body: bytes | None = None
    for_ever: bool = False


class FindValue(Request[KeptRow | None], frozen=True):
    """Ask what is kept under a key of a scope; None if nothing is. Refused with `JournalUnreadable`."""

    scope: str
    key: str


class KeptValues(msgspec.Struct, frozen=True):
    """Some of what is kept in one scope of the journal at `path`: the heads by the digests of their keys.

    The next of them are listed `after` a digest; None if these were the last.
    """

    path: str
    heads: dict[bytes, bytes]
    after: bytes | None = None


class ListValues(Request[KeptValues], frozen=True):
    """Ask for some of the heads that are kept in a scope: the first, or those `after` a digest (see `all_heads`).

    A ledger without a journal refuses it with `Permanent`, and one that cannot be read with `JournalUnreadable`.
    """

    scope: str
    after: bytes | None = None


class LeaveAccount(Message, frozen=True):
    """Leave an account open, with its figures, for the next that opens one of its name."""

    name: str

    def __post_init__(self) -> None:
        check_text("name", self.name)


async def all_heads(ledger: ActorRef[Any], scope: str, *, timeout: float) -> KeptValues:  # noqa: ASYNC109 - of each ask.
    """Return the heads of all that is kept in a scope of a ledger's journal, which it lists a part at a time.

    Raises what `ListValues` is refused with, and `AskTimeout` if a part takes longer than `timeout` seconds.
    """
    values = await ledger.ask(ListValues(scope), timeout=timeout)
    heads, after = values.heads, values.after
    while after is not None:
        following = await ledger.ask(ListValues(scope, after), timeout=timeout)
        heads.update(following.heads)
        after = following.after
    return KeptValues(values.path, heads)
