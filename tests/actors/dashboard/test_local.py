"""The local socket of a program: what a viewer is told, what it may do, and that it costs nothing until one comes."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest

from actors import GetStatus
from actors.dashboard import ActDone, View, Viewport, local
from actors.dashboard.local import MAX_VIEWERS, LocalAsk, LocalSocket
from actors.dashboard.messages import AskedAct
from actors.dashboard.view import Update
from tests.actors.dashboard.stage import looked_at

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no local sockets"),
]


class Connected:
    """A viewer at the socket of a program."""

    def __init__(self, reader, writer) -> None:
        self.reader, self.writer, self.view = reader, writer, View()

    async def answer(self) -> dict:
        return msgspec.json.decode(await self.reader.readline())

    async def ask(self, **asked) -> dict:
        self.writer.write(msgspec.json.encode(LocalAsk(**asked)) + b"\n")
        return await self.answer()

    async def look(self) -> None:
        update = (await self.ask(seen=self.view.seen)).get("update")
        if update is not None:
            self.view.apply(msgspec.convert(update, Update))


@asynccontextmanager
async def connected(place: LocalSocket):
    reader, writer = await asyncio.open_unix_connection(place.path)
    try:
        yield Connected(reader, writer)
    finally:
        writer.close()


async def test_a_viewer_is_told_which_program_it_is_and_what_goes_on():
    async with looked_at("alder", "birch") as stage, LocalSocket(stage.system) as place:
        before = set(stage.system.children)
        async with connected(place) as viewer:
            hello = await viewer.answer()
            assert (hello["pid"], hello["system"]) == (os.getpid(), "shop")
            assert set(stage.system.children) == before  # Nothing is counted until it is looked at.
            await viewer.look()
            assert {one.name for one in viewer.view.providers.values()} == {"alder", "birch"}
            assert {one.name for one in viewer.view.accounts.values()} == {"", "batch"}
            assert (await viewer.ask(seen=viewer.view.seen)) == {}
            actors = (await viewer.ask(seen=viewer.view.seen, look=Viewport(most=9)))["update"]["actors"]
            assert actors["rows"][0]["name"] == "shop"
    assert not place.path.exists()


async def test_an_act_needs_the_right_and_is_recorded_as_of_the_terminal():
    for may_act, words in ((True, "isolated"), (False, "refused: acts are switched off")):
        async with looked_at("alder") as stage, LocalSocket(stage.system, may_act=may_act) as place:
            done: list[ActDone] = []
            stage.system.events.subscribe(ActDone, done.append)
            async with connected(place) as viewer:
                await viewer.answer()
                await viewer.look()
                (key,) = viewer.view.providers
                told = await viewer.ask(act=AskedAct(kind="isolate", subject=key))
                assert told.keys() == {"outcome" if may_act else "error"}
                odd = AskedAct(kind="resolve", subject="x", charged="yes", cost="much")
                assert "much" in (await viewer.ask(act=odd))["error"]
                (status,) = await stage.supervisor.ask(GetStatus(), timeout=5.0)
                assert (status.breaker == "isolated") is may_act
            assert (done[0].who, done[0].kind) == ("terminal", "isolate")
            assert done[0].outcome.startswith(words)


@pytest.mark.parametrize("line", [b"no json\n", b'{"seen": 3}\n', b'{"more": 1}\n', b"x" * 200_000 + b"\n"])
async def test_what_no_viewer_sends_ends_its_connection_alone(line):
    async with (
        looked_at("alder") as stage,
        LocalSocket(stage.system) as place,
        connected(place) as odd,
        connected(place) as viewer,
    ):
        await odd.answer()
        odd.writer.write(line)
        with suppress(ConnectionError):
            assert await odd.reader.read() == b""
        await viewer.answer()
        await viewer.look()
        assert viewer.view.providers


async def test_another_user_is_not_answered(monkeypatch):
    async with looked_at("alder") as stage, LocalSocket(stage.system) as place:
        monkeypatch.setattr(local, "is_of_our_user", lambda _: False)
        async with connected(place) as viewer:
            with pytest.raises((ConnectionError, msgspec.DecodeError)):
                await viewer.answer()


async def test_there_are_at_most_so_many_viewers_and_each_makes_room_as_it_goes():
    async with looked_at("alder") as stage, LocalSocket(stage.system) as place:
        viewers = [Connected(*await asyncio.open_unix_connection(place.path)) for _ in range(MAX_VIEWERS)]
        for viewer in viewers:
            await viewer.answer()
            await viewer.look()
        async with connected(place) as late:
            await late.answer()  # It may still ask which program it is.
            assert "20 viewers look already" in (await late.ask())["error"]
        viewers[0].writer.close()
        for _ in range(100):
            async with connected(place) as later:
                await later.answer()
                if "error" not in await later.ask():
                    break
        else:
            pytest.fail("there is no room for another viewer")
        for viewer in viewers:
            viewer.writer.close()


async def test_a_viewer_that_does_not_read_is_let_go_and_holds_nothing_up(monkeypatch):
    monkeypatch.setattr(local, "PATIENCE", 0.2)
    names = [f"p{number}" for number in range(40)]
    async with looked_at(*names) as stage, LocalSocket(stage.system) as place, connected(place) as slow:
        await slow.answer()
        for _ in range(500):
            slow.writer.write(msgspec.json.encode(LocalAsk()) + b"\n")
        async with connected(place) as viewer:
            await viewer.answer()
            await viewer.look()
            assert len(viewer.view.providers) == 40
        await asyncio.wait(place._connections, timeout=60)
        assert place._viewers == 0


async def test_what_is_left_ends_the_streams_and_the_watcher():
    async with looked_at("alder") as stage:
        before = set(stage.system.children)
        async with LocalSocket(stage.system) as place, connected(place) as viewer:
            await viewer.answer()
            await viewer.look()
            assert set(stage.system.children) != before
            await place.__aexit__()
            assert await viewer.reader.read() == b""
        await asyncio.sleep(0)
        assert not place._connections
