"""`understudy top` over the socket of a system that runs, driven by textual's own pilot."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from actors import Transient
from actors.command.bad_input import BadInput
from actors.command.top.links import NotAllowed, SocketPlace
from actors.dashboard import ActDone
from actors.dashboard.local import LocalSocket
from tests.actors.dashboard.stage import looked_at

pytest.importorskip("textual", reason="the extra `tui` is not installed")

from actors.command.top.terminal import TopApp

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no local sockets"),
]


class Terminal:
    """A running `understudy top`, and what is on its screen."""

    def __init__(self, app: TopApp, pilot) -> None:
        self.app, self.pilot = app, pilot

    def drawn(self) -> str:
        """What textual has put on the screen."""
        return "\n".join(
            "".join(segment.text for segment in strip) for strip in self.app.screen._compositor.render_strips()
        )

    async def until(self, *words: str) -> str:
        deadline = asyncio.get_running_loop().time() + 20
        while not all(word in self.drawn() for word in words):
            await self.pilot.pause(0.1)
            assert asyncio.get_running_loop().time() < deadline, self.drawn()
        return self.drawn()


@asynccontextmanager
async def shown(place, *, size=(140, 40)):
    app = TopApp(place)
    async with app.run_test(size=size) as pilot:
        yield Terminal(app, pilot)


async def test_providers_and_accounts_are_shown_live():
    async with looked_at("alder", "birch") as stage, LocalSocket(stage.system) as place:
        stage.latency = 0.0
        await stage.request(account="batch")
        async with shown(SocketPlace(place.path)) as terminal:
            text = await terminal.until("alder", "● closed", "batch", "● live")
            assert "$0.02" in text
            stage.failing = {"alder": Transient("the oven is cold"), "birch": Transient("no [red]power[/]")}
            await stage.request(timeout=0.5)
            await terminal.until("the oven is cold", "no [red]power[/]")
            await terminal.pilot.press("q")
        assert terminal.app.return_code == 0


async def test_a_lost_connection_is_told_and_made_again():
    async with looked_at("alder") as stage, LocalSocket(stage.system) as place:
        path = place.path
        async with shown(SocketPlace(path)) as terminal:
            await terminal.until("alder", "● live")
            await place.__aexit__()
            text = await terminal.until("not connected", "what is shown is old")
            assert "alder" in text
            async with LocalSocket(stage.system) as again:
                assert again.path == path
                await terminal.until("● live")


async def test_a_key_isolates_what_is_selected_and_every_part_is_drawn():
    async with looked_at("alder", "birch") as stage, LocalSocket(stage.system, may_act=True) as place:
        done: list[ActDone] = []
        stage.system.events.subscribe(ActDone, done.append)
        async with shown(SocketPlace(place.path)) as terminal:
            press = terminal.pilot.press
            await terminal.until("● live", "isolate", "alder")
            await press("i")
            await terminal.until("isolate alder? y, or any other key")
            await press("y")
            await terminal.until("isolate: isolated", "‖ isolated")
            assert (done[0].who, done[0].outcome) == ("terminal", "isolated")
            await press("end", "u", "y")
            await terminal.until("resume: account 'batch' is not paused")
            await press("tab")
            await terminal.until("No request is under way.")
            await press("tab")
            await terminal.until("watcher", "supervisor", "running")
            await press("right")
            await terminal.until("dead letters", "isolated by hand")
            await press("slash", "x", "y")
            await terminal.until("events with: xy", "Nothing that matches")
            await press("ctrl+c")
        assert terminal.app.return_code == 0


class Broken:
    """A place that cannot be opened."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    @asynccontextmanager
    async def open(self):
        raise self.error
        yield


@pytest.mark.parametrize(
    ("error", "code"), [(NotAllowed("the page refuses the token"), 2), (BadInput("several run"), 2), (KeyError("x"), 1)]
)
async def test_what_no_waiting_mends_ends_it_with_its_reason(error, code):
    async with shown(Broken(error)) as terminal:
        for _ in range(200):
            if terminal.app.return_code is not None:
                break
            await terminal.pilot.pause(0.01)
    assert terminal.app.return_code == code
    assert (terminal.app.error or terminal.app.failure) == (str(error) if code == 2 else error)
