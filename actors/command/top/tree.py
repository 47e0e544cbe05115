"""The actor tree of the terminal: a line for each actor that is opened, with its mailbox and its restarts. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.command.top.formats import plain, row
from actors.command.top.lines import ScreenLine, ScreenSubject

if TYPE_CHECKING:
    from collections.abc import Collection

    from actors.dashboard.view import ActorLine, ActorPage

COLUMNS = (("actor", 40), ("class", 18), ("phase", 10), ("mailbox", -16))
HEADS = ScreenLine(row(*((name, width, "bold underline") for name, width in COLUMNS)))
MOST = 1_000_000
UNKNOWN = ScreenLine(plain("…", "dim"))
"""A line that has not been told yet."""


def actor_tree(page: ActorPage | None, opened: Collection[str]) -> list[ScreenLine]:
    """Return a line for each line of the tree; those that were not asked for are still unknown."""
    if page is None:
        return [UNKNOWN]
    total = min(page.total, MOST)
    lines = [UNKNOWN] * total
    for number, one in enumerate(page.rows[: max(0, total - page.first)], start=page.first):
        lines[number] = _line(one, is_open=one.depth == 0 or one.path in opened)
    return [HEADS, *lines]


def _line(one: ActorLine, *, is_open: bool) -> ScreenLine:
    fold = " " if not one.children or not one.depth else "▾" if is_open else "▸"
    facts = [
        f"{one.working} working" if one.working else "",
        f"{one.restarts} restart{'' if one.restarts == 1 else 's'}" if one.restarts else "",
        f"{one.children:,} below" if one.children else "",
    ]
    told = row(
        (f"{'  ' * min(one.depth, 10)}{fold} {one.name}", 40, "bold" if one.depth == 0 else ""),
        (one.actor, 18, "dim"),
        (one.phase, 10, "green" if one.phase == "running" else "yellow"),
        (f"{one.waiting:,} of {one.capacity:,}", -16, "yellow" if one.waiting else "dim"),
        plain(", ".join(filter(None, facts))),
    )
    return ScreenLine(told, ScreenSubject("actor", one.path))
