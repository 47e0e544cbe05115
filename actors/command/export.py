"""`understudy export`: write the entries of a journal as rows for people, exact to the micro-dollar."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import msgspec

from actors.command.bad_input import BadInput
from actors.command.journal_output import refusing_journals, time_text, write_lines
from actors.ledger.entries import (
    AccountClosed,
    AccountOpened,
    AccountPaused,
    AccountResumed,
    CapChanged,
    CapRenewed,
    HandleNoted,
    HeldUnderWay,
    MoneyHeld,
    MoneyReleased,
    MoneyReserved,
    MoneySettled,
    QuestionAnswered,
    QuestionAsked,
    TariffListed,
)
from actors.ledger.reading import reading_entries
from actors.masking import escaped
from actors.money import usd
from actors.tariffs.usage import COUNTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from actors.ledger.entries import Entry
    from actors.money import Micros
    from actors.tariffs.usage import Usage

FORMATS = ("csv", "jsonl")
KINDS: dict[type[Entry], str] = {
    AccountOpened: "account opened",
    CapChanged: "cap changed",
    CapRenewed: "cap renewed",
    QuestionAsked: "question asked",
    QuestionAnswered: "question answered",
    AccountPaused: "account paused",
    AccountResumed: "account resumed",
    AccountClosed: "account closed",
    TariffListed: "tariff listed",
    MoneyReserved: "reserved",
    MoneySettled: "paid",
    MoneyReleased: "released",
    MoneyHeld: "held",
    HeldUnderWay: "under way",
    HandleNoted: "handle noted",
}
AMOUNTS: dict[type[Entry], str] = {
    AccountOpened: "cap",
    CapChanged: "cap",
    QuestionAsked: "needed",
    QuestionAnswered: "cap",
    MoneyReserved: "amount",
    MoneySettled: "cost",
    MoneyReleased: "released",
    MoneyHeld: "held",
}
"""Which amount of an entry is told."""
LINE_END = "\r\n"
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a text begins that a spreadsheet would take for a formula
(https://owasp.org/www-community/attacks/CSV_Injection)."""


class ExportRow(msgspec.Struct, frozen=True, kw_only=True):
    """One entry: its number in the journal, when (UTC), what happened, and to how many dollars, as exact text.

    `id` is the reservation, by which the rows of one call belong together. Of "paid", `amount` is what the call cost,
    and `corrects` what was counted as its cost before: what was spent is the sum of `amount` of "paid" less the sum of
    all `corrects`. `usage` counts tokens, and `basis` says how the cost is known.
    """

    entry: int
    time: str
    kind: str
    id: int | None = None
    account: tuple[str, ...] = ()
    provider: str | None = None
    amount: str | None = None
    corrects: str | None = None
    basis: str | None = None
    usage: dict[str, int] | None = None
    tariff: str | None = None


HEADINGS = tuple(name for name in ExportRow.__struct_fields__ if name != "usage") + COUNTS


def export(path: str, *, form: str) -> int:
    """Write every entry of a journal that is left to standard output, the oldest first; return 0."""
    if form not in FORMATS:
        raise BadInput(f"--format: expected one of {', '.join(FORMATS)}, got {form!r}")
    with refusing_journals(), reading_entries(path) as entries:
        rows = (row_of(number, entry) for number, entry in entries)
        write_lines(csv_lines(rows) if form == "csv" else (msgspec.json.encode(row).decode() for row in rows))
    return 0


def row_of(number: int, entry: Entry) -> ExportRow:
    """Return the row of an entry."""
    accounts: tuple[str, ...] = getattr(entry, "accounts", ())
    account: str | None = getattr(entry, "account", None)
    name = AMOUNTS.get(type(entry))
    amount: Micros | None = None if name is None else getattr(entry, name)
    corrects: int = getattr(entry, "corrects", 0)
    usage: Usage | None = getattr(entry, "usage", None)
    tariff: str | None = entry.digest if isinstance(entry, TariffListed) else getattr(entry, "tariff", None)
    provider: str | None = getattr(entry, "provider", None)
    return ExportRow(
        entry=number,
        time=time_text(entry.at),
        kind=KINDS[type(entry)],
        id=getattr(entry, "reservation", None),
        account=tuple(map(escaped, accounts if account is None else (account,))),
        provider=None if provider is None else escaped(provider),
        amount=None if amount is None else usd(amount),
        corrects=usd(corrects) if corrects else None,
        basis=getattr(entry, "basis", None),
        usage=None if usage is None else {one: count for one in COUNTS if (count := getattr(usage, one))},
        tariff=tariff,
    )


def csv_lines(rows: Iterable[ExportRow]) -> Iterator[str]:
    """Yield rows as lines of CSV (RFC 4180), with a heading; several accounts are parted by semicolons."""
    yield _csv_line(HEADINGS)
    for row in rows:
        usage = row.usage or {}
        cells: list[object] = [getattr(row, name) for name in HEADINGS[: -len(COUNTS)]]
        cells[HEADINGS.index("account")] = "; ".join(row.account)
        yield _csv_line([*cells, *(usage.get(name) for name in COUNTS)])


def _csv_line(cells: Iterable[object]) -> str:
    text = io.StringIO()
    safe = (f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell for cell in cells)
    csv.writer(text, lineterminator=LINE_END).writerow(safe)  # What is in the end of a line is quoted within cells.
    return text.getvalue().removesuffix(LINE_END)
