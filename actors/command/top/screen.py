"""The state of the terminal: which part is shown, where its cursor is, and what a key does. Nothing here waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from rich.text import Text

from actors.command.top.acts import WORDS, Question, answered, question_of
from actors.command.top.events import events
from actors.command.top.formats import plain
from actors.command.top.lines import Moment, ScreenLine
from actors.command.top.overview import overview, problems
from actors.command.top.requests import requests
from actors.command.top.tree import actor_tree
from actors.dashboard.messages import MAX_OPENED, MAX_ROWS, Viewport
from actors.dashboard.view import View

if TYPE_CHECKING:
    from actors.command.top.lines import ScreenSubject
    from actors.dashboard.messages import AskedAct
    from actors.dashboard.view import Update

Part: TypeAlias = Literal["overview", "requests", "actors", "events"]
PARTS: tuple[Part, ...] = get_args(Part)
FIXED = 3
"""The lines above and below a part: what is shown and how it is, the parts, and the keys."""
MAX_TYPED = 40
NO_RIGHT = "acts are switched off there: start it with --dashboard-acts, or LocalSocket(may_act=True)"
MOVES = {"up": -1, "k": -1, "down": 1, "j": 1, "home": -10_000_000, "end": 10_000_000}


class Screen:
    """What one viewer sees; `draw` returns it as lines, and `press` takes its keys."""

    def __init__(self) -> None:
        self.view = View()
        self.part: Part = "overview"
        self.name = ""
        self.lost: str | None = "connecting"
        """Why there is no connection; None if there is one."""
        self.received = 0.0
        """When the last update came, by the clock of the viewer."""
        self.cursor = self.offset = 0
        self.has_moved = False
        self.subject: ScreenSubject | None = None
        """What the cursor is at."""
        self.opened: set[str] = set()
        """The paths of the actors whose children are shown."""
        self.looked_at: str | None = None
        """The request whose way is shown."""
        self.filter = ""
        self.question: Question | None = None
        self.typed: str | None = None
        """What is being typed, as an answer or as a filter; None if nothing is."""
        self.notice = ""
        """What came of the last act."""
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
        if self.part == "actors":
            first = max(0, self.offset - (MAX_ROWS - self.page) // 2)
            return Viewport(opened=tuple(sorted(self.opened)), first=first, most=MAX_ROWS)
        return Viewport(request=self.looked_at if self.part == "requests" else None)

    # Keys.

    def press(self, key: str, character: str | None = None) -> AskedAct | None:
        """Take a key by its name, such as "up"; return what is to be done because of it."""
        if key == "ctrl+c":
            self.is_over = True
        elif self.question is not None and not self.question.takes_cost:
            return self._decide(character or key)
        elif self.typed is not None:
            return self._type(key, character)
        elif character == "/":
            self.typed = self.filter
            self._show("events")
        elif character and character in "1234":
            self._show(PARTS[int(character) - 1])
        else:
            self._command(character if character is not None and character.isprintable() else key)
        return None

    def _command(self, key: str) -> None:
        self.notice = ""
        match key:
            case "q":
                self.is_over = True
            case "tab" | "right" | "shift+tab" | "left":
                step = 1 if key in {"tab", "right"} else -1
                self._show(PARTS[(PARTS.index(self.part) + step) % len(PARTS)])
            case "pageup" | "pagedown":
                self._move(self.page if key == "pagedown" else -self.page)
            case "escape":
                self.looked_at, self.filter = None, ""
            case "enter":
                self._enter()
            case _ if key in MOVES:
                self._move(MOVES[key])
            case _ if self.subject is not None:
                self._ask(key, self.subject)
            case _:
                pass

    def _show(self, part: Part) -> None:
        if part != self.part:
            self.part, self.cursor, self.offset, self.subject, self.has_moved = part, 0, 0, None, False

    def _move(self, lines: int) -> None:
        self.cursor, self.subject, self.has_moved = max(0, self.cursor + lines), None, True

    def _enter(self) -> None:
        subject = self.subject
        if subject is None:
            return
        if subject.kind == "request":
            self.looked_at = None if self.looked_at == subject.key else subject.key
        elif subject.kind == "actor":
            if subject.key in self.opened:
                self.opened = {one for one in self.opened if not f"{one}/".startswith(f"{subject.key}/")}
            elif len(self.opened) < MAX_OPENED:
                self.opened.add(subject.key)

    def _ask(self, key: str, subject: ScreenSubject) -> None:
        question = question_of(key, subject, self.view)
        if question is None:
            return
        total = self.view.totals.get("")
        if self.lost is not None or total is None or not total.may_act:
            self.notice = NO_RIGHT if self.lost is None else "there is no connection"
            return
        self.question = question
        self.typed = "" if question.takes_cost else None

    def _decide(self, key: str) -> AskedAct | None:
        question, self.question = self.question, None
        return question.act if question is not None and key == "y" else None

    def _type(self, key: str, character: str | None) -> AskedAct | None:
        typed, question = self.typed or "", self.question
        match key:
            case "enter":
                self.typed = self.question = None
                if question is not None:
                    return answered(question, typed)
            case "escape":
                self.typed = self.question = None
                if question is None:
                    self.filter = ""
                return None
            case "backspace":
                self.typed = typed[:-1]
            case _ if character is not None and character.isprintable() and len(typed) < MAX_TYPED:
                self.typed = typed + character
            case _:
                pass
        if question is None:
            self.filter = typed if self.typed is None else self.typed
        return None

    # Drawing.

    def draw(self, width: int, height: int, *, clock: float) -> list[Text]:
        """Return exactly `height` lines, none wider than `width` cells."""
        elapsed = max(0.0, clock - self.received) if self.received else 0.0
        moment = Moment(self.view, self.view.now + elapsed, self.view.at + elapsed)
        self.page = max(1, height - FIXED)
        body = self._place_cursor(self._body(moment))
        lines = [self._title(moment), self._parts(), *body[: max(0, height - FIXED)]]
        lines += [Text("")] * (height - len(lines) - 1)
        lines = [*lines[: max(0, height - 1)], self._bottom()]
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        return lines[-height:]

    def _title(self, moment: Moment) -> Text:
        found = problems(moment)
        state = plain("✓ all well", "green")
        if found:
            state = plain(f"{found[0][0]} {len(found)} problem{'' if len(found) == 1 else 's'}", found[0][1])
        if self.lost is None:
            live = plain("● live", "green")
        else:
            live = plain(f"○ {self.lost}{'; what is shown is old' if self.received else ''}", "bold red")
        return Text("  ").join([Text("understudy", style="bold"), plain(self.name), live, state])

    def _parts(self) -> Text:
        made = Text(no_wrap=True, end="")
        for number, part in enumerate(PARTS, start=1):
            made.append(f" {number} {part} ", style="bold reverse" if part == self.part else "dim")
        return made

    def _body(self, moment: Moment) -> list[ScreenLine]:
        match self.part:
            case "overview":
                return overview(moment)
            case "requests":
                return requests(moment, self.looked_at)
            case "actors":
                return actor_tree(self.view.actors, self.opened)
            case "events":
                return events(moment, self.filter)

    def _place_cursor(self, lines: list[ScreenLine]) -> list[Text]:
        """Keep the cursor at its subject, and in sight; return the lines that have room, with its own marked."""
        last = max(0, len(lines) - 1)
        if not self.has_moved:
            self.cursor = next((index for index, line in enumerate(lines) if line.subject is not None), 0)
        self.cursor = min(self.cursor, last)
        if self.has_moved and self.subject is not None and lines[self.cursor].subject != self.subject:
            places = [index for index, line in enumerate(lines) if line.subject == self.subject]
            self.cursor = places[0] if places else self.cursor
        self.subject = lines[self.cursor].subject
        self.offset = 0 if not self.has_moved else max(min(self.offset, self.cursor), self.cursor - self.page + 1)
        texts = [line.drawn() for line in lines[self.offset : self.offset + self.page]]
        if 0 <= self.cursor - self.offset < len(texts):
            texts[self.cursor - self.offset].stylize("reverse")
        return texts

    def _bottom(self) -> Text:
        """Return what is asked, or what came of the last act, or the keys."""
        if self.question is not None:
            rest = (
                f" {self.typed}▏ enter, or escape" if self.question.takes_cost else " y, or any other key to leave it"
            )
            return plain(f"{self.question.text}{rest}", "bold reverse")
        if self.typed is not None:
            return plain(f"events with: {self.typed}▏ enter, or escape for all", "bold reverse")
        if self.notice:
            return plain(self.notice, "bold")
        total = self.view.totals.get("")
        keys = [("↑↓", "move"), ("tab", "next part"), ("/", "filter events"), ("q", "quit")]
        if self.subject is not None:
            may_act = total is not None and total.may_act
            keys = [one for one in WORDS[self.subject.kind] if may_act or one[0] == "enter"] + keys
        made = Text(no_wrap=True, end="")
        for key, word in keys:
            made.append(f" {key} ", style="reverse").append(f" {word}  ")
        return made
