"""`understudy forget`: erase answers from a journal beyond recovery, and keep what was paid for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actors.batch.resuming import KeptItem, items_scope, key_to_ask
from actors.command.bad_input import BadInput
from actors.command.journal_output import refusing_journals, write_lines
from actors.ledger.keys import scoped_key
from actors.ledger.mending import owning

if TYPE_CHECKING:
    from runtime.persistence import Journal

WORDS = ("tenant", "account")


class Place(msgspec.Struct, frozen=True):
    """Whose answers: those of a tenant, of an account, or, without both, of the requests that name neither."""

    tenant: str | None = None
    account: str | None = None

    @property
    def scope(self) -> str:
        """The scope in the journal."""
        word, name = ("tenant", self.tenant) if self.tenant is not None else ("account", self.account)
        return "" if name is None else f"{word} {name!r}"


def forget(path: str, *, scope: str | None, key: str | None) -> int:
    """Erase the answers of a scope, or under one key of it, say how many, and return 0."""
    place = place_of(scope, key)
    with refusing_journals(), owning(path) as journal:
        answers, outcomes = erase(journal.store, place, key)
    beside = f" and {counted(outcomes, 'outcome')} of batch items" if outcomes else ""
    write_lines(
        [f"erased {counted(answers, 'answer')}{beside}; what was paid is still known, and no key is paid again"]
    )
    return 0


def place_of(scope: str | None, key: str | None) -> Place:
    """Return whose answers the options name.

    >>> place_of("tenant acme", None), place_of(None, "order 17")
    (Place(tenant='acme', account=None), Place(tenant=None, account=None))
    """
    if scope is None and key is None:
        raise BadInput("--scope or --key: say whose answers are to be erased")
    if scope is None or scope == "journal":
        return Place()
    word, _, name = scope.partition(" ")
    if word not in WORDS or not name:
        raise BadInput(
            f'--scope: expected "tenant NAME", "account NAME", or "journal" for keys of neither, got {scope!r}'
        )
    return Place(tenant=name) if word == "tenant" else Place(account=name)


def erase(journal: Journal, place: Place, key: str | None) -> tuple[int, int]:
    """Erase answers, and what a batch has kept beside them of the items of its account; return how many of both."""
    items = None if place.account is None else items_scope(place.account)
    if key is None:
        return journal.forget(place.scope), 0 if items is None else journal.forget(items)
    keys, outcomes = [key], 0
    if items is not None and (row := journal.find(items, key)) is not None:
        revision = msgspec.msgpack.decode(row.head, type=KeptItem).revision
        keys += [key_to_ask(key, number) for number in range(2, revision + 1)]
        outcomes = journal.forget(items, key)
    scoped = [scoped_key(one, tenant=place.tenant, account=place.account) for one in keys]
    return sum(journal.forget(place.scope, one) for one in scoped), outcomes


def counted(count: int, what: str) -> str:
    """Return a number of things as text.

    >>> counted(1, "answer"), counted(2, "answer")
    ('1 answer', '2 answers')
    """
    return f"{count} {what}{'' if count == 1 else 's'}"
