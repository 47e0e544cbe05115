"""The terminal of `understudy top`, by textual: it draws the lines of a `Screen`, and gives it the keys."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text

from actors.command.bad_input import BadInput
from actors.command.top.links import LinkRefusal, NotAllowed
from actors.command.top.screen import Screen
from actors.dashboard.messages import Viewport

if TYPE_CHECKING:
    from actors.command.top.links import Link, LinkPlace
    from actors.dashboard.messages import AskedAct

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
        self.look = Viewport()
        self.error: str | None = None
        """Why it ended by itself."""
        self.failure: BaseException | None = None

    def compose(self) -> Any:
        yield textual_widgets.Static(id="lines", markup=False)

    def on_mount(self) -> None:
        self.run_worker(self.follow(), exit_on_error=False)
        self.set_interval(REDRAW, self.redraw)

    def on_worker_state_changed(self, event: Any) -> None:
        """End with the error of a task, which is raised once the terminal is as it was.

        What textual would print itself has the values of variables, of which one may be a token.
        """
        if event.worker.error is not None:
            self.failure = event.worker.error
            self.exit(return_code=1)

    def on_resize(self) -> None:
        self.redraw()

    async def on_key(self, event: Any) -> None:
        """Give a key to the screen, and do what it says."""
        event.stop()
        act = self.seen.press(event.key, event.character)
        if self.seen.is_over:
            self.exit()
            return
        self.redraw()
        if act is not None:
            self.run_worker(self.act(act), exit_on_error=False)

    async def act(self, act: AskedAct) -> None:
        """Have something done, and say what came of it."""
        self.seen.notice = f"{act.kind} ..."
        try:
            if self.link is None:
                raise ConnectionError("there is no connection")
            self.seen.notice = f"{act.kind}: {await self.link.act(act)}"
        except (LinkRefusal, NotAllowed, OSError) as error:
            self.seen.notice = f"{act.kind}: {error}"
        self.redraw()

    def action_leave(self) -> None:
        self.exit()

    def redraw(self) -> None:
        """Draw what is known now."""
        lines = self.seen.draw(self.size.width, self.size.height, clock=time.monotonic())
        self.query_one("#lines").update(Text("\n", no_wrap=True).join(lines))
        look = self.seen.look()
        if look != self.look and self.link is not None:
            self.look = look
            self.run_worker(self.look_at(self.link, look), exclusive=True, group="look", exit_on_error=False)

    async def look_at(self, link: Link, look: Viewport) -> None:
        """Say what is looked at now; if the connection is lost, that shows where updates are waited for."""
        with suppress(OSError, NotAllowed):
            await link.look_at(look)

    async def follow(self) -> None:
        """Show what the program tells, and connect again if it is lost."""
        while True:
            try:
                async with self.place.open() as link:
                    self.seen.connected(link.name)
                    self.link = link
                    self.look = self.seen.look()
                    await link.look_at(self.look)
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
