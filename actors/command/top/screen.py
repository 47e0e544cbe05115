"""The state of the terminal: which part is shown, where its cursor is, and what a key does. Pure but for its state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from rich.text import Text

from actors.command.top.formats import plain, row
from actors.command.top.lines import Moment, ScreenLine
from actors.command.top.overview import overview, problems
from actors.dashboard.messages import Viewport
from actors.dashboard.view import View

if TYPE_CHECKING:
    from actors.command.top.lines import ScreenSubject
    from actors.dashboard.messages import AskedAct
    from actors.dashboard.view import Update

Part: TypeAlias = Literal["overview"]
PARTS: tuple[Part, ...] = get_args(Part)
FIXED = 3
"""The lines above and below a part: what is shown and how it is, the parts, and the keys."""


class Screen:
    """What one viewer sees; `draw` returns it as lines, and `press` takes its keys."""

    def __init__(self) -> None:
        self.view = View()
        self.part: Part = "overview"
        self.name = ""
        self.lost: str | None = "connecting ..."
        """Why there is no connection; None if there is one."""
        self.received = 0.0
        """When the last update came, by the clock of the viewer."""
        self.cursor = self.offset = 0
        self.has_moved = False
        self.subject: ScreenSubject | None = None
        self.page = 10
        """The lines of a part that have room."""
        self.is_over = False

    # The connection.

    def connected(self, name: str) -> None:
        """Begin anew: another program may answer now."""
        self.view, self.name, self.lost = View(), name, None

    def disconnected(self, reason: str) -> None:
        """Say why there is no connection; what is shown stays, and is old."""
        self.lost = reason

    def take(self, update: Update, *, clock: float) -> None:
        """Bring what is shown up to date."""
        self.view.apply(update)
        self.received = clock

    def look(self) -> Viewport:
        """Return what is looked at beside the tables."""
        return Viewport()

    # Keys.

    def press(self, key: str, character: str | None = None) -> AskedAct | None:
        """Take a key by its name, such as "up"; return what is to be done because of it."""
        match key:
            case "q" | "ctrl+c":
                self.is_over = True
            case "up" | "k":
                self._move(-1)
            case "down" | "j":
                self._move(1)
            case "pageup":
                self._move(-self.page)
            case "pagedown":
                self._move(self.page)
            case "home":
                self._move(-self.cursor)
            case "end":
                self._move(1_000_000)
            case _:
                pass
        return None

    def _move(self, lines: int) -> None:
        self.cursor, self.subject, self.has_moved = max(0, self.cursor + lines), None, True

    # Drawing.

    def draw(self, width: int, height: int, *, clock: float) -> list[Text]:
        """Return exactly `height` lines, none wider than `width` cells."""
        elapsed = max(0.0, clock - self.received) if self.received else 0.0
        moment = Moment(self.view, self.view.now + elapsed, self.view.at + elapsed)
        self.page = max(1, height - FIXED)
        body = self._place_cursor(self._body(moment))
        lines = [self._title(moment), *body[self.offset : self.offset + self.page]]
        lines += [Text("")] * (height - len(lines) - 1)
        lines = [*lines[: height - 1], self._keys()]
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        return lines

    def _title(self, moment: Moment) -> Text:
        found = problems(moment)
        state = ("✓ all well", 0, "green")
        if found:
            state = (f"{found[0][0]} {len(found)} problem{'' if len(found) == 1 else 's'}", 0, found[0][1])
        live = (
            plain("● live", "green") if self.lost is None else plain(f"○ {self.lost}; what is shown is old", "bold red")
        )
        return Text(" ").join([Text("understudy", style="bold"), plain(self.name), live, plain(state[0], state[2])])

    def _body(self, moment: Moment) -> list[ScreenLine]:
        return overview(moment)

    def _place_cursor(self, lines: list[ScreenLine]) -> list[Text]:
        """Keep the cursor at its subject, and in sight; return the lines with its own marked."""
        last = max(0, len(lines) - 1)
        if not self.has_moved:
            self.cursor = next((index for index, line in enumerate(lines) if line.subject is not None), 0)
        self.cursor = min(self.cursor, last)
        if self.subject is not None and (not lines or lines[self.cursor].subject != self.subject):
            places = [index for index, line in enumerate(lines) if line.subject == self.subject]
            self.cursor = places[0] if places else self.cursor
        self.subject = lines[self.cursor].subject if lines else None
        self.offset = max(min(self.offset, self.cursor, last), self.cursor - self.page + 1) if self.has_moved else 0
        texts = [line.text for line in lines]
        if texts:
            marked = texts[self.cursor].copy()
            marked.stylize("reverse")
            texts[self.cursor] = marked
        return texts

    def _keys(self) -> Text:
        return row(("↑↓ move", 8), ("q quit", 6))
