"""What a line of the terminal is, and of what it tells. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from actors.command.top.formats import plain, span

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.text import Text

    from actors.dashboard.view import View, WaitingRow

SubjectKind: TypeAlias = Literal["provider", "account", "held", "request", "actor"]


class ScreenSubject(NamedTuple):
    """Of what a line tells, by the key of its row, so that it can be acted on."""

    kind: SubjectKind
    key: str


class ScreenLine(NamedTuple):
    """One line, as wide as it is; what shows it cuts it. A long list has functions, called for the lines in sight."""

    text: Text | Callable[[], Text]
    subject: ScreenSubject | None = None

    def drawn(self) -> Text:
        """Return a text of its own."""
        return self.text() if callable(self.text) else self.text.copy()


class Moment(NamedTuple):
    """A view, and the present of the program that is shown: `now` in loop time, `at` in seconds since 1970."""

    view: View
    now: float
    at: float


def heading(text: str) -> ScreenLine:
    """Return the line above a part."""
    return ScreenLine(plain(text, "bold underline"))


def empty(text: str) -> ScreenLine:
    """Return the line of a part that has nothing."""
    return ScreenLine(plain(text, "dim"))


def wait_text(wait: WaitingRow, now: float) -> str:
    """Return why something waits, and for how much longer."""
    said = f"{wait.reason}: {wait.text}" if wait.text else wait.reason
    if wait.before:
        said += f", {wait.before} before it"
    if wait.until is not None and wait.until > now:
        said += f", {span(wait.until - now)} more"
    return said
