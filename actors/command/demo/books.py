"""Compares our books with those of the servers, which compute apart from us. Pure."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import msgspec
from rich import box
from rich.table import Table

from actors.ledger.entries import MoneyHeld, MoneyReleased, MoneySettled
from actors.money import ZERO, Micros

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.command.demo.processes import BookedLine
    from runtime import Event

TOLD = frozenset({"exact", "provider"})
"""The bases of costs that a provider told, by its usage or by its own figure."""


class OurBooks:
    """What was booked for the calls to one provider, gathered from the entries of the ledger."""

    def __init__(self) -> None:
        self.told_calls = 0
        self.told = self.estimated = ZERO
        self._held: dict[int, Micros] = {}

    @property
    def held(self) -> Micros:
        """What is kept for calls that may have been paid."""
        return sum(self._held.values(), ZERO)

    def receive(self, entry: Event) -> None:
        """Book an entry of the ledger; others are ignored."""
        match entry:
            case MoneySettled(reservation=reservation, cost=cost, basis=basis, corrects=corrects):
                self._held.pop(reservation, None)
                if basis in TOLD:
                    self.told_calls += 1
                    self.told += cost
                else:
                    self.estimated += cost
                self.estimated -= corrects
            case MoneyHeld(reservation=reservation, held=held):
                self._held[reservation] = held
            case MoneyReleased(reservation=reservation):
                self._held.pop(reservation, None)
            case _:
                pass


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """Both books of one server, in micro-dollars.

    `told` is about the calls whose usage the server told, `untold` about those that were cut off before. What we booked
    for the latter is what they may have cost at most, settled or held.
    """

    name: str
    calls: int
    failed: int
    throttled: int
    told_calls: int
    our_told_calls: int
    charged_told: Fraction
    booked_told: Micros
    untold_calls: int
    charged_untold: Fraction
    booked_untold: Micros

    @property
    def difference(self) -> Fraction:
        """What we booked above what was charged, of the calls whose usage was told."""
        return self.booked_told - self.charged_told


def compare(name: str, lines: Sequence[BookedLine], ours: OurBooks) -> Compared:
    """Return both books of a server."""
    told = [line for line in lines if line.status == 200 and line.answered]
    untold = [line for line in lines if line.charged != "0" and not line.answered]
    return Compared(
        name=name,
        calls=len(lines),
        failed=sum(line.status >= 500 for line in lines),
        throttled=sum(line.status == 429 for line in lines),
        told_calls=len(told),
        our_told_calls=ours.told_calls,
        charged_told=sum((line.micros for line in told), Fraction(0)),
        booked_told=ours.told,
        untold_calls=len(untold),
        charged_untold=sum((line.micros for line in untold), Fraction(0)),
        booked_untold=ours.estimated + ours.held,
    )


def disagreements(both: Sequence[Compared]) -> list[str]:
    """Return in what the books disagree; nothing if they agree.

    Each cost is exact, and rounded up once to the next micro-dollar. So of n calls whose usage was told, we have booked
    what was charged and less than n micro-dollars more.
    """
    found: list[str] = []
    for one in both:
        if one.told_calls != one.our_told_calls:
            found.append(f"{one.name} told the usage of {one.told_calls} calls, and {one.our_told_calls} are booked so")
        elif not 0 <= one.difference < max(1, one.told_calls):
            found.append(
                f"{one.name} charged {float(one.charged_told):,.2f} micro-dollars for {one.told_calls} calls whose "
                f"usage it told, but {int(one.booked_told):,} are booked"
            )
    return found


def books_table(both: Sequence[Compared]) -> Table:
    """Return a table of both books, of at most 100 columns."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="Both books, in micro-dollars", title_justify="left")
    table.add_column("\nserver")
    for heading in (
        "\ncalls",
        "\nfailed",
        "\n429s",
        "usage\ntold",
        "they\ncharged",
        "we\nbooked",
        "rounded\nup by",
        "cut\noff",
        "they\ncharged",
        "we book\nor hold",
    ):
        table.add_column(heading, justify="right")
    for one in both:
        counts = (one.calls, one.failed, one.throttled, one.told_calls)
        told = (f"{float(one.charged_told):,.2f}", f"{int(one.booked_told):,}", f"{float(one.difference):,.2f}")
        untold = (str(one.untold_calls), f"{float(one.charged_untold):,.2f}", f"{int(one.booked_untold):,}")
        table.add_row(one.name, *map(str, counts), *told, *untold)
    return table
