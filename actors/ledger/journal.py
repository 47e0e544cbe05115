"""The entries of a book on disk, and what was paid under each key beside them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import msgspec

from actors.ledger.entries import Entry, MoneyHeld, MoneyReleased, MoneyReserved, MoneySettled
from actors.ledger.errors import JournalUnreadable
from actors.ledger.kept_receipt import head_of, packed
from actors.ledger.keys import is_made_up, scope_of
from runtime.persistence import Codec, JournalError, MemoryJournal, SqliteJournal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from actors.ledger.receipt import Receipt
    from runtime.persistence import Journal, KeptRow, Packing, Retention, Safety, SnapshotRow

IN_MEMORY = ":memory:"
PAID = "\0paid"
"""The scope of what was paid under keys; that of no caller begins so."""
COUNTED = ""
"""The key there that stands once all entries are counted in it, as they are not in a file of an earlier format."""


class MoneyJournal:
    """The journal of one ledger; raises `JournalError` if it cannot be used.

    Its directory must exist. With the path ":memory:" nothing is kept beyond the life of this object. A `store` is one
    that is open already, such as to be read only.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        safety: Safety = "process",
        retention: Retention | None = None,
        packing: Packing | None = None,
        store: Journal | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self.store: Journal = (
            store
            if store is not None
            else MemoryJournal(retention=retention, packing=packing)
            if self.path == IN_MEMORY
            else SqliteJournal(path, safety=safety, retention=retention, packing=packing, migrate=migrated)
        )
        self._held: dict[str, set[int]] = {}
        """The reservations that are held, by key."""
        self._of_callers: set[str] = set()
        """The keys of callers that look as if they were made up, while money is reserved under them."""
        self._codec = Codec[Entry](Entry)
        self._paid = msgspec.msgpack.Decoder(tuple[int, str])
        self._receipt_pays: tuple[str, int] | None = None
        """The key and the cost of a receipt that says what is paid under its key, so that no row of its own has to."""
        self._is_counted = self.store.find(PAID, COUNTED) is not None

    def read(self, *, after: SnapshotRow | None = None) -> Iterator[Entry]:
        """Yield every entry, from the first on or after a snapshot; to be called before any is appended.

        Raises `JournalError` for a damaged one.
        """
        decode, is_counted = self._codec.decode, self._is_counted
        for content in self.store.replay(after=after):
            try:
                entry = decode(content)
            except msgspec.MsgspecError as error:
                raise JournalError(
                    self.path, f"is damaged at entry {self.store.number}: {error}", "move it away and restore a copy"
                ) from error
            if not is_counted:
                self._count(entry)
            yield entry
        if not is_counted:
            self.store.put(PAID, COUNTED, b"", at=None)
            self._is_counted = True

    def append(self, entry: Entry, *, is_first: bool = False) -> None:
        """Note an entry, to be written by the next commit; it `is_first` if none before has paid its key."""
        self.store.append(self._codec.encode(entry))
        self._count(entry, is_first=is_first)
        if type(entry) is MoneyReserved:
            if entry.fingerprint is not None and is_made_up(entry.key):
                self._of_callers.add(entry.key)
        elif type(entry) is MoneyHeld:
            self._hold(entry.key, entry.reservation)
        elif self._held and isinstance(entry, MoneySettled | MoneyReleased):
            self._let_go(entry.key, entry.reservation)

    def hold_keys(self, held: Iterable[tuple[str, int]]) -> None:
        """Keep what is known of these keys for as long as the money of these reservations is held under them."""
        for key, reservation in held:
            self._hold(key, reservation)

    def _hold(self, key: str, reservation: int) -> None:
        self._held.setdefault(key, set()).add(reservation)
        for scope in (PAID, scope_of(key)):
            self.store.spare(scope, key)

    def _let_go(self, key: str, reservation: int) -> None:
        held = self._held.get(key)
        if held is None:
            return
        held.discard(reservation)
        if not held:
            del self._held[key]
            for scope in (PAID, scope_of(key)):
                self.store.spare(scope, key, is_spared=False)

    def commit(self) -> None:
        """Write what was appended, all of it or nothing; raises `JournalError`, after which it can be tried again."""
        self.store.commit()

    def paid(self, key: str) -> tuple[int, str] | None:
        """Return what was paid under a key in all, in micro-units, and to which provider last; None if nothing was.

        There are two cases: 1. It has a row of its own. 2. Its receipt says so, being for the only call that was paid.
        Raises `JournalUnreadable`.
        """
        row = self._find(PAID, key)
        if row is not None:
            paid = self._paid.decode(row.head)
            return paid if paid[0] else None  # 1.
        return self._paid_by_receipt(self.receipt_row(key))  # 2.

    def receipt_row(self, key: str) -> KeptRow | None:
        """Return what is kept of a receipt; None if there is none. Raises `JournalUnreadable`."""
        return self._find(scope_of(key), key)

    def put_receipt(self, receipt: Receipt, *, pays: bool) -> None:
        """Keep a receipt with the entry that is appended next, which is of its whole cost if it `pays`."""
        key = receipt.purchase.key
        paid = self.paid(key)
        if self._paid_by_receipt(self.receipt_row(key)) is not None and paid is not None:
            self._put_paid(key, *paid, at=receipt.at)  # The receipt that says so is replaced.
        is_paid = pays and paid is None and receipt.purchase.number == 1
        if is_paid:
            self._receipt_pays = key, int(receipt.cost)
        head, body = packed(receipt, is_paid=is_paid)
        self.store.put(scope_of(key), key, head, body, at=receipt.at)

    def forget_answer(self, key: str) -> None:
        """Have the next commit remove the answer that is kept under a key. Raises `JournalUnreadable`."""
        try:
            self.store.drop_body(scope_of(key), key)
        except JournalError as error:
            raise JournalUnreadable(f"the answer under key {key!r} cannot be removed", error) from error

    def _find(self, scope: str, key: str) -> KeptRow | None:
        try:
            return self.store.find(scope, key)
        except JournalError as error:
            raise JournalUnreadable(f"it is not known whether key {key!r} was paid", error) from error

    def _paid_by_receipt(self, row: KeptRow | None) -> tuple[int, str] | None:
        head = None if row is None else head_of(row)
        return (head.cost, head.provider) if head is not None and head.is_paid else None

    def _put_paid(self, key: str, paid: int, provider: str, *, at: float) -> None:
        self.store.put(PAID, key, msgspec.msgpack.encode((paid, provider)), at=at)

    def _count(self, entry: Entry, *, is_first: bool = False) -> None:
        """Note what was paid under a key; what an entry corrects was counted before.

        A request without a key ends with the program, if not before, and is never asked for again. So nothing is noted
        for it, unless money was held: its caller was told of that by its identity, and may ask again by that.
        """
        if not isinstance(entry, MoneySettled | MoneyReleased):
            return
        change = (int(entry.cost) if isinstance(entry, MoneySettled) else 0) - int(entry.corrects)
        receipt_pays, self._receipt_pays = self._receipt_pays, None
        is_of_caller = entry.key in self._of_callers
        if is_of_caller:
            self._of_callers.discard(entry.key)
        elif entry.key not in self._held and is_made_up(entry.key):
            return
        if change and receipt_pays != (entry.key, change):
            try:
                paid, provider = (None if is_first else self.paid(entry.key)) or (0, entry.provider)
            except JournalUnreadable:
                return  # What is damaged stays so, and nothing is paid under that key; the entry itself is kept.
            self._put_paid(entry.key, paid + change, entry.provider if change > 0 else provider, at=entry.at)

    def close(self) -> None:
        """Let go of the file; what was appended and not committed is lost."""
        self.store.close()

    def __repr__(self) -> str:
        return f"<MoneyJournal on {self.store!r}>"


def migrated(version: int, text: str) -> bytes:  # noqa: ARG001 - 1 and 2 differ in fields that have defaults.
    """Return an entry of format 1 or 2, a text in JSON, as it is written now."""
    fields: dict[str, Any] = json.loads(text)
    fields["type"] = f"actors.ledger.{fields['type']}"
    return msgspec.msgpack.encode(msgspec.convert(fields, Entry))
