"""The messages by which a program keeps values in a ledger's journal, beside the money that they are about.

They share the journal's commits, so that what was told after a payment is never on disk without it.
"""

from __future__ import annotations

import msgspec

from actors.validation import check_text
from runtime import Message, Request
from runtime.persistence import KeptRow


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
    """Ask what is kept under a key of a scope; None if nothing is."""

    scope: str
    key: str


class KeptValues(msgspec.Struct, frozen=True):
    """What is kept in one scope of the journal at `path`: the heads by the digests of their keys."""

    path: str
    heads: dict[bytes, bytes]


class ListValues(Request[KeptValues], frozen=True):
    """Ask for the heads of all that is kept in a scope; refused with `Permanent` by a ledger without a journal."""

    scope: str


class LeaveAccount(Message, frozen=True):
    """Leave an account open, with its figures, for the next that opens one of its name."""

    name: str

    def __post_init__(self) -> None:
        check_text("name", self.name)
