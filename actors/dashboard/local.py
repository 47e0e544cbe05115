"""Shows a system to `understudy top`: `async with LocalSocket(system): ...`. Its owner alone may look.

Each line that a viewer sends is answered with one line of JSON, as of the moment at which it is asked: a viewer that is
slow asks seldom, and gets the newest state. Until the first one comes, nothing is counted, and so it costs nothing.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
import sys
from typing import TYPE_CHECKING, Any, Self

import msgspec

from actors.dashboard.app import ACT_TIMEOUT, ASK_TIMEOUT, MAX_VIEWERS
from actors.dashboard.messages import Act, AskedAct, GetUpdate, Viewport, act_of
from actors.dashboard.socket_folder import is_of_our_user, new_socket
from actors.dashboard.view import Seen, shown
from actors.dashboard.watcher import MAILBOX, Watcher
from actors.errors.families import CallFailed
from runtime import RuntimeFault

if TYPE_CHECKING:
    from pathlib import Path

    from runtime import ActorRef, ActorSystem

PATIENCE = 30.0
"""Seconds that a viewer may take for one answer, and until it asks again."""
MAX_ASK = 65_536
"""Bytes of one line of a viewer."""
MAX_CONNECTIONS = 100
"""Connections at once: those of viewers, and those that only ask which program it is."""
WHO = "terminal"
"""What acts are recorded under: all who may connect are one user."""


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a connection: which program is shown."""

    pid: int
    command: str
    system: str


class LocalAsk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A line of a viewer: what it has `seen` and looks at, or what it wants done."""

    seen: Seen = Seen()
    look: Viewport = Viewport()
    act: AskedAct | None = None


class LocalAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer: the JSON of an `Update`, if anything has changed; what was done; or an `error`."""

    update: msgspec.Raw | None = None
    outcome: str | None = None
    error: str | None = None


ASK = msgspec.json.Decoder(LocalAsk)


class LocalSocket:
    """The socket by which `understudy top` finds this program; leave its block before that of the system.

    It is in a folder of the owner (`$XDG_RUNTIME_DIR/understudy`, or among the temporary files), and takes connections
    of the owner's processes alone, at most 20 viewers. With `may_act`, they may isolate, release, resolve, pause, stop
    and restart. With the `watcher` of a page, both show the same, and that one says what viewers may do. Entering
    raises OSError if there can be no socket.
    """

    def __init__(
        self, system: ActorSystem, *, may_act: bool = False, watcher: ActorRef[GetUpdate | Act] | None = None
    ) -> None:
        self._system, self._may_act, self._watcher = system, may_act, watcher
        self._own: ActorRef[GetUpdate | Act] | None = None
        self._connections: set[asyncio.Task[Any]] = set()
        self._viewers = 0
        self._is_closing = False
        self.path: Path | None = None
        """Where it listens."""

    async def __aenter__(self) -> Self:
        """Begin to listen."""
        if not hasattr(socket, "AF_UNIX"):
            raise OSError("this system has no local sockets")
        listening, self.path = new_socket()
        try:
            self._server = await asyncio.start_unix_server(self._connected, sock=listening, limit=MAX_ASK)
        except BaseException:
            listening.close()
            self.path.unlink(missing_ok=True)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening, let viewers go, and stop watching."""
        self._is_closing = True
        self._server.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)
        if self._own is not None:
            self._own.stop()

    def __repr__(self) -> str:
        return f"<LocalSocket of {self._system.name} at {self.path}>"

    def _watched(self) -> ActorRef[GetUpdate | Act]:
        if self._watcher is None:
            system, may_act = self._system, self._may_act
            self._watcher = self._own = system.spawn(lambda: Watcher(system, may_act=may_act), mailbox=MAILBOX)
        return self._watcher

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a server runs this as a task.
        connection = writer.get_extra_info("socket")
        # A copy of its own, as what other loops have for a socket tells less.
        with socket.fromfd(connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as copy:
            is_allowed = is_of_our_user(copy)
        if not is_allowed or len(self._connections) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, TimeoutError, ValueError, RuntimeFault):
            pass  # The viewer has gone, or it has sent what no viewer sends, or the system has ended.
        except asyncio.CancelledError:
            if not self._is_closing:  # Of a connection that we end, asyncio would call that an error of its own.
                raise
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one line after the other until there are no more."""
        writer.transport.set_write_buffer_limits(high=0)
        command = shown(shlex.join(sys.orig_argv))
        await _send(writer, Shown(pid=os.getpid(), command=command, system=shown(self._system.name)))
        is_viewer = False
        try:
            while line := await _line(reader):
                if not is_viewer:
                    if self._viewers >= MAX_VIEWERS:
                        await _send(writer, LocalAnswer(error=f"{MAX_VIEWERS} viewers look already; end one of them"))
                        return
                    self._viewers += 1
                    is_viewer = True
                await _send(writer, await self._answer(ASK.decode(line)))
        finally:
            self._viewers -= is_viewer

    async def _answer(self, asked: LocalAsk) -> LocalAnswer:
        watcher = self._watched()
        if asked.act is None:
            update = await watcher.ask(GetUpdate(seen=asked.seen, look=asked.look), timeout=ASK_TIMEOUT)
            return LocalAnswer(update=None if update is None else msgspec.Raw(update))
        try:
            return LocalAnswer(outcome=await watcher.ask(act_of(asked.act, who=WHO), timeout=ACT_TIMEOUT))
        except (CallFailed, RuntimeFault, ValueError) as error:
            return LocalAnswer(error=shown(str(error)))


async def _line(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(PATIENCE):
        return await reader.readline()


async def _send(writer: asyncio.StreamWriter, answer: msgspec.Struct) -> None:
    writer.write(msgspec.json.encode(answer) + b"\n")
    async with asyncio.timeout(PATIENCE):
        await writer.drain()
