"""`understudy resolve`: enter what a person found out about a call that may have been paid."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from actors.command.bad_input import BadInput, one_line
from actors.command.journal_output import refusing_journals, write_lines
from actors.errors.families import Permanent
from actors.ledger.entries import MoneySettled
from actors.ledger.mending import outcome_text, resolve
from actors.masking import escaped
from actors.money import to_micros

if TYPE_CHECKING:
    from actors.ledger.mending import Resolution
    from actors.money import Micros


def enter(path: str, reservation: int, *, paid: str | None, not_paid: bool) -> int:
    """Enter what became of a held call, say what was entered, and return 0; raises `BadInput` if it is refused."""
    charged, cost = outcome(paid, not_paid=not_paid)
    with refusing_journals():
        try:
            done = resolve(path, reservation, charged, cost, at=time.time())
        except Permanent as refusal:
            raise BadInput(
                f"{path}: {escaped(one_line(str(refusal)))}; understudy held {path} lists what can be resolved"
            ) from refusal
    write_lines([told(reservation, done)])
    return 0


def outcome(paid: str | None, *, not_paid: bool) -> tuple[Literal["yes", "no"], Micros | None]:
    """Return what the options say: whether it was paid, and how much."""
    if (paid is not None) == not_paid:
        raise BadInput("--paid USD or --not-paid: say which of the two, and not both")
    if paid is None:
        return "no", None
    try:
        return "yes", to_micros(paid)
    except ValueError as error:
        raise BadInput(f"--paid: {error}") from error


def told(reservation: int, done: Resolution) -> str:
    """Say what was entered."""
    entry, verb = done.entry, "is entered as" if done.is_new else "was entered before as"
    text = f"reservation {reservation} {verb} {escaped(outcome_text(entry))}"
    if isinstance(entry, MoneySettled) and entry.overcharged:
        text += f", which is {entry.overcharged} more than was held"
    return text
