"""`understudy held`: show the calls of a journal that may have been paid, and what each may become."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from rich import box
from rich.table import Table
from rich.text import Text

from actors.command.journal_output import output_console, refusing_journals, short_time, time_text, write_lines
from actors.ledger.reading import read_book
from actors.masking import escaped
from actors.money import ZERO, usd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.ledger.reading import BookView, UnsettledCall


class HeldLine(msgspec.Struct, frozen=True, kw_only=True):
    """One held call as JSON: amounts in dollars, times in UTC. `at_most` is what it may have cost.

    It counts as paid at `until`; null if the `held_for` of its ledger decides. `told_key` is the idempotency key that
    its provider was told, by which the provider's own books may know it.
    """

    id: int
    since: str
    provider: str
    at_most: str
    accounts: tuple[str, ...]
    until: str | None
    told_key: str
    is_under_way: bool
    is_passed_over: bool


def show_held(path: str, *, as_json: bool) -> int:
    """Print each held call of a journal, as a table or as JSON lines; return 0."""
    with refusing_journals():
        view = read_book(path)
    if as_json:
        write_lines(msgspec.json.encode(held_line(one)).decode() for one in view.held)
        return 0
    console = output_console()
    if view.held:
        console.print(held_table(view.held))
    console.print(Text(closing(view)), soft_wrap=True)
    return 0


def held_line(call: UnsettledCall) -> HeldLine:
    """Return a held call as it is told to programs."""
    return HeldLine(
        id=call.reservation,
        since=time_text(call.since),
        provider=escaped(call.provider),
        at_most=usd(call.amount),
        accounts=tuple(map(escaped, call.accounts)),
        until=None if call.until is None else time_text(call.until),
        told_key=call.told_key,
        is_under_way=call.is_under_way,
        is_passed_over=call.is_passed_over,
    )


def held_table(held: Sequence[UnsettledCall]) -> Table:
    """Return a table with a row for each held call."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, justify in (("id", "right"), ("since", "left"), ("provider", "left"), ("at most", "right")):
        table.add_column(heading, justify=justify, no_wrap=heading != "provider")  # type: ignore[arg-type]
    for heading in ("accounts", "told key", "may become"):
        table.add_column(heading, overflow="fold")
    for one in held:
        table.add_row(
            str(one.reservation),
            short_time(one.since),
            Text(escaped(one.provider)),
            str(one.amount),
            Text(escaped(", ".join(one.accounts))),
            one.told_key,
            may_become(one),
        )
    return table


def may_become(call: UnsettledCall) -> str:
    """Say how a held call may end."""
    if call.is_under_way:
        end = "paid or not: its provider says that it is under way"
    elif call.until is not None:
        end = f"paid or not; counts as paid at {short_time(call.until)}"
    else:
        end = "paid or not; held until that is known"
    if call.has_handle:
        end += "; it can be taken up, and is when the run goes on"
    return f"{end}; another provider was paid besides" if call.is_passed_over else end


def closing(view: BookView) -> str:
    """Say how much is held in all, and how that ends."""
    owner = "" if view.owner is None else f" {view.under_way} under way in {view.owner}."
    if not view.held:
        return f"No call is held.{owner}"
    many = "1 call is held" if len(view.held) == 1 else f"{len(view.held)} calls are held"
    total = sum((one.amount for one in view.held), ZERO)
    return (
        f"{many}, at most {total}.{owner} Ask the provider what became of a call, then write: "
        "understudy resolve JOURNAL ID --paid USD, or --not-paid"
    )
