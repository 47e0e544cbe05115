"""An event loop that refuses sockets, threads, processes and signals, each with what to use instead."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from runtime.simulation.errors import USE_TRANSPORT, NotSimulated

if TYPE_CHECKING:
    from collections.abc import Callable


class ClosedLoop(asyncio.BaseEventLoop):
    """A loop whose calls that reach out of the program raise `NotSimulated`."""

    def refused(self, error: NotSimulated) -> None:
        """Take note of a refused call, before it raises `error`."""

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> NoReturn:
        del executor, args
        self._refuse(
            f"a thread for {name_of_function(func)}",
            "give your actor the function that does the blocking work, and in simulation one that does not block",
        )

    async def create_connection(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse_sockets("create_connection")

    async def create_server(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse_sockets("create_server")

    async def create_datagram_endpoint(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse_sockets("create_datagram_endpoint")

    async def create_unix_connection(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse_sockets("create_unix_connection")

    async def create_unix_server(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse_sockets("create_unix_server")

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse_sockets("getaddrinfo")

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse_processes("subprocess_exec")

    async def subprocess_shell(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse_processes("subprocess_shell")

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> NoReturn:
        self._refuse_sockets("add_reader")

    def add_writer(self, fd: Any, callback: Any, *args: Any) -> NoReturn:
        self._refuse_sockets("add_writer")

    async def connect_read_pipe(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse_processes("connect_read_pipe")

    async def connect_write_pipe(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse_processes("connect_write_pipe")

    def add_signal_handler(self, sig: Any, callback: Any, *args: Any) -> NoReturn:
        self._refuse("loop.add_signal_handler", "call the handler itself")

    def _refuse_sockets(self, call: str) -> NoReturn:
        self._refuse(f"loop.{call}", USE_TRANSPORT)

    def _refuse_processes(self, call: str) -> NoReturn:
        self._refuse(f"loop.{call}", "give your code a function that starts the process, and simulate that")

    def _refuse(self, call: str, instead: str) -> NoReturn:
        error = NotSimulated(call, instead)
        self.refused(error)
        raise error


def name_of_function(function: Any) -> str:
    """Return a name to show; that of the function inside for the wrapper which `asyncio.to_thread` makes."""
    if isinstance(function, partial):
        arguments: tuple[Any, ...] = function.args
        return name_of_function(next((one for one in arguments if callable(one)), function.func))
    return getattr(function, "__qualname__", type(function).__qualname__)
