"""`understudy explain`: the way of one request, call by call, as its journal tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec
from rich import box
from rich.table import Table
from rich.text import Text

from actors.batch.resuming import RUNS, KeptDetails, KeptItem, KeptRun, items_scope, key_of_id, key_to_ask
from actors.command.bad_input import BadInput
from actors.command.journal_output import output_console, refusing_journals, time_text, write_lines
from actors.ledger.entries import HeldUnderWay, MoneyHeld, MoneyReleased, MoneyReserved, MoneySettled
from actors.ledger.journal import MoneyJournal
from actors.ledger.keys import SCOPE, provider_key, purchase_of
from actors.masking import escaped
from actors.money import Micros, to_micros, usd
from runtime.persistence import reading

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from actors.batch.resuming import KeptAttempt
    from actors.ledger.entries import Entry
    from runtime.persistence import ReadOnlyJournal

Money: TypeAlias = Literal["reserved", "paid", "free", "held", "under way"]
"""What became of what was reserved for a call: "under way" is held, and its provider says that it is at work."""
ITEM = msgspec.msgpack.Decoder(KeptItem)
DETAILS = msgspec.msgpack.Decoder(KeptDetails)
RUN = msgspec.msgpack.Decoder(KeptRun)
SAME_CALL = 5.0
"""Seconds between a call's reservation and its beginning at most: a busy disk may be between them."""


class ExplainedCall(msgspec.Struct, kw_only=True):
    """One call: when it began and what it `waited` before, in UTC and in seconds, and what became of it and its money.

    What is null is not in the journal: a call outside of a batch has no seconds and no error there, and a call that
    costs nothing has no reservation.
    """

    provider: str
    began: str
    waited: float | None = None
    seconds: float | None = None
    error: str | None = None
    reservation: int | None = None
    reserved: str | None = None
    money: Money | None = None
    cost: str | None = None
    basis: str | None = None
    accounts: tuple[str, ...] = ()


class ExplainedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request: its key, its run if it is an item of a batch, how it has ended, and its calls, the first one first."""

    key: str
    run: str | None
    status: str | None
    cost: str
    until: str | None
    calls: tuple[ExplainedCall, ...]


class _Item(msgspec.Struct, frozen=True):
    run: KeptRun
    key: str
    kept: KeptItem
    details: KeptDetails


def show_explanation(path: str, request: str, *, as_json: bool) -> int:
    """Print the way of a request that a journal knows by its key or id; return 0. Raises `BadInput` for no other."""
    with refusing_journals(), reading(path) as store:
        explained = explanations(store, request)
    if not explained:
        raise BadInput(
            f"{path} knows no request {escaped(request)!r}; give its key, as the results or `understudy held` tell it, "
            "or the id of an item. What a snapshot stands for may be gone"
        )
    if as_json:
        write_lines(msgspec.json.encode(one).decode() for one in explained)
        return 0
    console = output_console()
    for one in explained:
        console.print(Text(headline(one)), soft_wrap=True)
        console.print(calls_table(one.calls))
    return 0


def explanations(store: ReadOnlyJournal, request: str) -> list[ExplainedRequest]:
    """Return every request that a journal knows by this key, or as an item with this id: there is one in each run."""
    items = list(_items(store, request))
    wanted = {request, *(key_to_ask(one.key, one.kept.revision) for one in items), *(one.key for one in items)}
    entries: dict[str, list[Entry]] = {}
    for entry in MoneyJournal(store.path, store=store).read():
        if isinstance(entry, MoneyReserved | MoneySettled | MoneyReleased | MoneyHeld | HeldUnderWay):
            key = plain_key(entry.key)
            if key in wanted or provider_key(entry.key) == request:
                entries.setdefault(key, []).append(entry)
    found: list[ExplainedRequest] = []
    for one in items:
        booked = calls_of(e for key in _keys_of(one) for e in entries.pop(key, ()))
        found.append(_explained(one.key, joined(one.details.attempts, booked), one))
    found += [_explained(key, [call for _, call in calls_of(of_key)], None) for key, of_key in entries.items()]
    return found


def _items(store: ReadOnlyJournal, request: str) -> Iterator[_Item]:
    for head in store.heads(RUNS).values():
        run = RUN.decode(head)
        for key in dict.fromkeys((request, f"{run.id}/{key_of_id(request)}")):
            row = store.find(items_scope(run.account), key)
            if row is not None:
                kept = ITEM.decode(row.head)
                has_details = row.body is not None and kept.status != "parked"
                yield _Item(run, key, kept, DETAILS.decode(row.body) if has_details and row.body else KeptDetails())


def _keys_of(item: _Item) -> Iterator[str]:
    """Yield each key under which an item was asked for, the first one first."""
    return (key_to_ask(item.key, revision) for revision in range(1, item.kept.revision + 1))


def plain_key(key: str) -> str:
    """Return the key that a caller gave, of one as the ledger has it.

    >>> plain_key("purchase 2 of tenant 'acme' order 17"), plain_key("order 17"), plain_key("key account 'a' x")
    ('order 17', 'order 17', "account 'a' x")
    """
    scoped, _ = purchase_of(key)
    if scoped.startswith("key "):
        return scoped.removeprefix("key ")
    scope = SCOPE.match(scoped)
    return scoped if scope is None else scoped[scope.end() :]


def calls_of(entries: Iterable[Entry]) -> list[tuple[float, ExplainedCall]]:
    """Return the calls for which money was reserved, each with when that was (since 1970), from entries in order.

    A call that repeats another one under its key shares its reservation.
    """
    calls: list[tuple[float, ExplainedCall]] = []
    newest: dict[int, ExplainedCall] = {}
    for entry in entries:
        if isinstance(entry, MoneyReserved):
            call = newest[entry.reservation] = ExplainedCall(
                provider=escaped(entry.provider),
                began=time_text(entry.at),
                reservation=entry.reservation,
                reserved=usd(entry.amount),
                money="reserved",
                accounts=tuple(map(escaped, entry.accounts)),
            )
            calls.append((entry.at, call))
        elif isinstance(entry, MoneySettled | MoneyReleased | MoneyHeld | HeldUnderWay):
            call = newest.get(entry.reservation)
            if call is not None:
                _book(call, entry)
    return calls


def _book(call: ExplainedCall, entry: MoneySettled | MoneyReleased | MoneyHeld | HeldUnderWay) -> None:
    match entry:
        case MoneySettled():
            call.money, call.cost, call.basis = "paid", usd(entry.cost), entry.basis
        case MoneyReleased():
            call.money, call.cost = "free", usd(Micros(0))
        case MoneyHeld():
            call.money = "held"
        case HeldUnderWay():
            call.money = "under way"


def joined(attempts: Sequence[KeptAttempt], booked: Sequence[tuple[float, ExplainedCall]]) -> list[ExplainedCall]:
    """Return the calls of an item: what was kept of each, with the reservation that was made just before it began.

    A reservation without a call is told too: the item had to wait once more, or was given up.
    """
    left = list(booked)
    calls: list[tuple[float, ExplainedCall]] = []
    for one in attempts:
        began = one.began
        near = [pair for pair in left if pair[1].provider == escaped(one.provider) and abs(pair[0] - began) < SAME_CALL]
        pair = min(near, key=lambda pair: abs(pair[0] - began), default=None)
        if pair is None:
            call = ExplainedCall(provider=escaped(one.provider), began=time_text(began), cost=usd(Micros(one.cost)))
        else:
            left.remove(pair)
            call = pair[1]
        call.waited, call.seconds = one.waited, one.latency
        call.error = None if one.error is None else escaped(one.error)
        calls.append((began, call))
    return [call for _, call in sorted([*calls, *left], key=lambda pair: pair[0])]


def _explained(key: str, calls: Sequence[ExplainedCall], item: _Item | None) -> ExplainedRequest:
    cost = sum(to_micros(one.cost) for one in calls if one.cost is not None)
    is_parked = item is not None and item.kept.status == "parked"
    return ExplainedRequest(
        key=escaped(key),
        run=None if item is None else escaped(item.run.account),
        status=None if item is None else item.kept.status,
        cost=usd(Micros(cost)),
        until=time_text(item.kept.until) if item is not None and is_parked else None,
        calls=tuple(calls),
    )


def headline(request: ExplainedRequest) -> str:
    """Return what a request came to, in one line."""
    count = len(request.calls)
    said = f"{request.key}: {'1 call' if count == 1 else f'{count} calls'}, ${request.cost}"
    if request.run is not None:
        said = f"{said}; {request.status}, of {request.run!r}"
    return said if request.until is None else f"{said}, until {request.until}"


def calls_table(calls: Sequence[ExplainedCall]) -> Table:
    """Return a table with a row for each call."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "began", "provider", "waited", "took", "reserved", "cost", "money", "what became of it"):
        table.add_column(heading, overflow="fold")
    for number, one in enumerate(calls, 1):
        waited = "" if one.waited is None else f"{one.waited:.3f} s"
        took = "" if one.seconds is None else f"{one.seconds:.3f} s"
        became = one.error or ("" if one.seconds is None else "answered")
        cells = (one.provider, waited, took, one.reserved or "", one.cost or "", one.money or "", became)
        table.add_row(str(number), one.began.replace("T", " "), *map(Text, cells))
    return table
