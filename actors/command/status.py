"""`understudy status`: show how far the runs in a journal have come, what they spent, and when they will be done."""

from __future__ import annotations

import time
from collections import Counter
from heapq import nlargest
from typing import TYPE_CHECKING

import msgspec
from rich.table import Table
from rich.text import Text

from actors.batch.resuming import FINAL, RUNS, KeptItem, KeptRun, items_scope
from actors.command.duration import duration_text
from actors.command.journal_output import output_console, refusing_journals, time_text, write_lines
from actors.ledger.reading import view
from actors.masking import escaped
from actors.money import ZERO, Micros, usd
from runtime.persistence import owner_of, reading

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.ledger.page import Statement
    from actors.ledger.reading import BookView

RECENT = 100
"""The items that ended last, by which the rate is told."""
RUN = msgspec.msgpack.Decoder(KeptRun)
ITEM = msgspec.msgpack.Decoder(KeptItem)


class RunStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far a run has come: its items by how they have ended, amounts in dollars, times in UTC.

    `requests` are its items in all, and `left` those that are still to be asked for; null if that is not known.
    `paid` counts the items that were paid, and whose answers cannot be had, `budget` those for which too little money
    was left, and `parked` those that wait for a reset, the first
    of them until `parked_until`. `rate` is in items a second, over the last 100, and `seconds_left` what is left at
    that rate; both are null unless the run is under way (`owner`).
    """

    account: str
    began: str
    owner: str | None
    requests: int | None
    done: int
    failed: int
    paid: int
    budget: int
    unknown: int
    parked: int
    parked_until: str | None
    left: int | None
    spent: str
    held: str
    cap: str | None
    rate: float | None
    seconds_left: float | None


def show_status(path: str, *, as_json: bool) -> int:
    """Print how far each run in a journal has come, and its accounts if it has no run; return 0."""
    with refusing_journals():
        owner = owner_of(path)
        with reading(path) as store:
            book = view(store, owner=owner)
            runs = sorted((RUN.decode(head) for head in store.heads(RUNS).values()), key=lambda run: run.began)
            kept = [
                (run, [ITEM.decode(head) for head in store.heads(items_scope(run.account)).values()]) for run in runs
            ]
    now = time.time()
    statuses = [status_of(run, items, book, now=now) for run, items in kept]
    if as_json:
        write_lines(msgspec.json.encode(one).decode() for one in statuses)
        return 0
    console = output_console()
    for status in statuses:
        console.print(status_table(status))
    if not statuses:
        console.print(Text("No run is kept in this journal; its accounts:"))
        for account in (*book.accounts, book.total):
            console.print(Text(escaped(str(account))), soft_wrap=True)
    return 0


def status_of(run: KeptRun, items: Iterable[KeptItem], book: BookView, *, now: float) -> RunStatus:
    """Return how far a run has come; `now` is in seconds since 1970."""
    counts, ended, resets = Counter[str](), list[float](), list[float]()
    for item in items:
        counts[item.status] += 1
        if item.status == "parked":
            resets.append(item.until)
        elif item.at:
            ended.append(item.at)
    statement = next((one for one in book.accounts if one.name == run.account), None)
    over = sum(counts[status] for status in FINAL)
    left = None if run.requests is None else max(0, run.requests - over)
    rate = None if book.owner is None else recent_rate(ended, now=now)
    return RunStatus(
        account=escaped(run.account),
        began=time_text(run.began),
        owner=None if book.owner is None else str(book.owner),
        requests=run.requests,
        done=counts["done"],
        failed=counts["failed"],
        paid=counts["paid"],
        budget=counts["budget"],
        unknown=counts["unknown"],
        parked=counts["parked"],
        parked_until=time_text(min(resets)) if resets else None,
        left=left,
        spent=usd(_figure(statement, "settled")),
        held=usd(_figure(statement, "held")),
        cap=None if statement is None or statement.cap is None else usd(statement.cap),
        rate=rate,
        seconds_left=None if not rate or left is None else left / rate,
    )


def recent_rate(ended: Iterable[float], *, now: float) -> float | None:
    """Return how many items a second have ended lately, by when each did; None if they are too few to tell.

    >>> recent_rate([1.0, 2.0, 3.0], now=4.0), recent_rate([1.0], now=4.0)
    (1.0, None)
    """
    recent = nlargest(RECENT, ended)
    if len(recent) < 2:
        return None
    lasted = max(now, recent[0]) - recent[-1]
    return len(recent) / lasted if lasted > 0 else None


def status_table(status: RunStatus) -> Table:
    """Return what a run's status says, for people."""
    table = Table.grid(padding=(0, 2))
    state = "not under way" if status.owner is None else f"under way in {status.owner}"
    table.add_row("run", Text(f"{status.account}, begun {status.began}, {state}"))
    count = "" if status.requests is None else f"{status.requests}: "
    parts = [f"{status.done} done", f"{status.failed} failed", f"{status.unknown} unknown"]
    parts += [f"{status.paid} paid without an answer that could be had"] if status.paid else []
    parts += [f"{status.budget} without money left for them"] if status.budget else []
    parts += [f"{status.parked} parked until {status.parked_until}"] if status.parked else []
    parts += [f"{status.left} left"] if status.left is not None else []
    table.add_row("requests", count + ", ".join(parts))
    cap = "" if status.cap is None else f" of ${status.cap}"
    held = "" if status.held == usd(ZERO) else f", and ${status.held} held: understudy held JOURNAL lists it"
    table.add_row("spent", f"${status.spent}{cap}{held}")
    if status.rate is not None:
        left = "" if status.seconds_left is None else f"; about {duration_text(status.seconds_left)} left"
        table.add_row("rate", f"{status.rate:.3g}/s{left}")
    return table


def _figure(statement: Statement | None, name: str) -> Micros:
    return ZERO if statement is None else getattr(statement, name)
