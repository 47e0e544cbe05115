"""The terminal of `understudy top`, by textual: it draws the lines of a `Screen`, and gives it the keys."""

from __future__ import annotations

import asyncio
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text

from actors.command.bad_input import BadInput
from actors.command.top.links import NotAllowed
from actors.command.top.screen import Screen

if TYPE_CHECKING:
    from actors.command.top.links import Link, LinkPlace

textual_app: Any = import_module("textual.app")
textual_binding: Any = import_module("textual.binding")
textual_widgets: Any = import_module("textual.widgets")

RETRY = 1.0
"""Seconds until a lost connection is tried again."""
REDRAW = 0.5
"""Seconds after which what counts up is drawn anew."""


class TopApp(textual_app.App):
    """Shows one program, and comes back to it if the connection is lost."""

    ENABLE_COMMAND_PALETTE = False
    CSS = "Screen { background: ansi_default; } #lines { width: 100%; height: 100%; text-wrap: nowrap; }"
    BINDINGS: ClassVar[list[Any]] = [textual_binding.Binding("ctrl+c", "leave", show=False, priority=True)]

    def __init__(self, place: LinkPlace) -> None:
        super().__init__(ansi_color=True)  # pyright: ignore[reportUnknownMemberType] - of textual.
        self.place = place
        self.seen = Screen()
        self.link: Link | None = None
        self.error: str | None = None
        """Why it ended by itself."""

    def compose(self) -> Any:
        yield textual_widgets.Static(id="lines", markup=False)

    def on_mount(self) -> None:
        self.run_worker(self.watch())
        self.set_interval(REDRAW, self.redraw)

    def on_resize(self) -> None:
        self.redraw()

    async def on_key(self, event: Any) -> None:
        """Give a key to the screen, and do what it says."""
        event.stop()
        self.seen.press(event.key, event.character)
        if self.seen.is_over:
            self.exit()
            return
        self.redraw()

    def action_leave(self) -> None:
        self.exit()

    def redraw(self) -> None:
        """Draw what is known now."""
        lines = self.seen.draw(self.size.width, self.size.height, clock=time.monotonic())
        self.query_one("#lines").update(Text("\n", no_wrap=True).join(lines))

    async def watch(self) -> None:
        """Show what the program tells, and connect again if it is lost."""
        while True:
            try:
                async with self.place.open() as link:
                    self.seen.connected(link.name)
                    self.link = link
                    await link.look_at(self.seen.look())
                    async for update in link.updates():
                        self.seen.take(update, clock=time.monotonic())
                        self.redraw()
            except OSError as error:
                self.seen.disconnected(f"not connected: {error}")
            except (NotAllowed, BadInput) as error:
                self.error = str(error)
                self.exit(return_code=2)
                return
            finally:
                self.link = None
            self.redraw()
            await asyncio.sleep(RETRY)
