"""`understudy parked`: show the items of runs that wait for a reset, and cancel what is not wanted any more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
from rich import box
from rich.table import Table
from rich.text import Text

from actors.batch.kept_batch import cancelled_item
from actors.batch.resuming import RUNS, KeptItem, KeptParked, KeptRun, items_scope
from actors.command.bad_input import BadInput
from actors.command.journal_output import output_console, refusing_journals, short_time, time_text, write_lines
from actors.ledger.mending import owning
from actors.masking import escaped
from runtime.persistence import reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.persistence import ReadOnlyJournal

ITEM = msgspec.msgpack.Decoder(KeptItem)
PARKED = msgspec.msgpack.Decoder(KeptParked)
RUN = msgspec.msgpack.Decoder(KeptRun)
ERASED = "(erased)"
"""The key of an item whose body was erased by `understudy forget`."""


class ParkedItem(msgspec.Struct, frozen=True):
    """An item that is parked: its run's account, its key, what is kept of it, and why it is parked."""

    account: str
    key: str
    kept: KeptItem
    why: str = ""


class ParkedLine(msgspec.Struct, frozen=True, kw_only=True):
    """One parked item as JSON; times are in UTC. The `key` is null if it was erased with the answers of its run."""

    account: str
    key: str | None
    since: str
    until: str
    why: str


def show_parked(path: str, *, as_json: bool) -> int:
    """Print each parked item of a journal, the first to go on first, as a table or as JSON lines; return 0."""
    with refusing_journals(), reading(path) as store:
        items = parked_items(store)
    if as_json:
        write_lines(msgspec.json.encode(parked_line(one)).decode() for one in items)
        return 0
    console = output_console()
    if items:
        console.print(parked_table(items))
    many = {0: "No item is parked.", 1: "1 item is parked."}.get(len(items), f"{len(items)} items are parked.")
    hint = " Its run goes on with it by itself; --cancel KEY ends it as one that never ran." if items else ""
    console.print(Text(many + hint), soft_wrap=True)
    return 0


def cancel_parked(path: str, keys: Sequence[str], *, every: bool) -> int:
    """End parked items as ones that never ran, say how many, and return 0; raises `BadInput` if one is not parked."""
    with refusing_journals():
        with reading(path) as store:
            parked = {one.key: one for one in parked_items(store) if one.key != ERASED}
        unknown = [key for key in keys if key not in parked]
        if unknown:
            raise BadInput(
                f"{path}: no item is parked under the key {unknown[0]!r}; understudy parked {path} lists them"
            )
        wanted = list(parked.values()) if every else [parked[key] for key in dict.fromkeys(keys)]
        with owning(path) as journal:
            now = time.time()
            for one in wanted:
                head, body = cancelled_item(one.kept, at=now)
                journal.store.put(items_scope(one.account), one.key, head, body, at=now)
            journal.commit()
    many = "1 item is" if len(wanted) == 1 else f"{len(wanted)} items are"
    write_lines([f"{many} cancelled, and never ran; --retry-failed asks for them again"])
    return 0


def parked_items(store: ReadOnlyJournal) -> list[ParkedItem]:
    """Return the items of all runs that are parked, the first to go on first."""
    items: list[ParkedItem] = []
    for head in store.heads(RUNS).values():
        account = RUN.decode(head).account
        for row in store.kept(items_scope(account)):
            kept = ITEM.decode(row.head)
            if kept.status == "parked":
                told = KeptParked(ERASED, "") if row.body is None else PARKED.decode(row.body)
                items.append(ParkedItem(account, told.key, kept, told.why))
    return sorted(items, key=lambda one: (one.kept.until, one.kept.at))


def parked_line(item: ParkedItem) -> ParkedLine:
    """Return a parked item as it is told to programs."""
    return ParkedLine(
        account=escaped(item.account),
        key=None if item.key == ERASED else item.key,
        since=time_text(item.kept.at),
        until=time_text(item.kept.until),
        why=escaped(item.why),
    )


def parked_table(items: Sequence[ParkedItem]) -> Table:
    """Return a table with a row for each parked item."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("key", "since", "until"):
        table.add_column(heading, no_wrap=heading != "key", overflow="fold")
    table.add_column("why", overflow="fold")
    for one in items:
        times = short_time(one.kept.at), short_time(one.kept.until)
        table.add_row(Text(escaped(one.key)), *times, Text(escaped(one.why)))
    return table
