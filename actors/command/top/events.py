"""The events and the dead letters of the terminal. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from actors.command.top.formats import plain, row, span
from actors.command.top.lines import Moment, ScreenLine, empty

if TYPE_CHECKING:
    from actors.dashboard.view import EventRow

MARKS = {"good": ("✓", "green"), "info": ("·", "dim"), "warn": ("!", "yellow"), "bad": ("✕", "bold red")}


def events(moment: Moment, wanted: str) -> list[ScreenLine]:
    """Return the events that have a word, the last first, and then the dead letters."""
    rows = [one for one in moment.view.events.values() if is_wanted(one, wanted)]
    rows.sort(key=lambda one: -one.at)
    lines = [ScreenLine(plain(f"events with “{wanted}”" if wanted else "events", "bold underline"))]
    lines += [ScreenLine(_event(one, moment.now)) for one in rows]
    if not rows:
        lines.append(empty("Nothing that matches." if wanted else "Nothing yet."))
    return [*lines, ScreenLine(Text("")), *dead_letters(moment)]


def is_wanted(one: EventRow, wanted: str) -> bool:
    """Tell whether an event has a word in its kind, subject or text, whatever its case."""
    return wanted.lower() in f"{one.kind} {one.subject} {one.text}".lower()


def _event(one: EventRow, now: float) -> Text:
    mark, style = MARKS[one.level]
    more = f" ({one.count:,} times)" if one.count > 1 else ""
    others = f" and {one.others:,} others" if one.others else ""
    return row(
        (f"{span(now - one.at)} ago", -12, "dim"),
        (mark, 1, style),
        (one.kind, 10),
        (one.subject, 20, "bold"),
        plain(f"{one.text}{more}{others}", style if one.level in {"bad", "warn"} else ""),
    )


def dead_letters(moment: Moment) -> list[ScreenLine]:
    """Return the messages that no handler saw, by kind and recipient."""
    lines = [ScreenLine(plain("dead letters", "bold underline"))]
    rows = sorted(moment.view.dead_letters.values(), key=lambda one: -one.at)
    for one in rows:
        told = row(
            (f"{span(moment.now - one.at)} ago", -12, "dim"),
            (f"{one.count:,}", -8),
            (one.message, 24, "bold"),
            (one.reason, 12),
            plain(f"to {one.recipient}"),
        )
        lines.append(ScreenLine(told))
    return lines if rows else [*lines, empty("None.")]
