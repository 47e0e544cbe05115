"""`understudy fake`: serve a model provider that fails by seed until the command is interrupted."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from actors.command.bad_input import BadInput, one_line
from actors.command.interrupts import Interrupts
from actors.fake.config import FakeConfig
from actors.fake.files import read_config, read_plan
from actors.fake.prices import micro_text
from actors.fake.server import FakeServer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

ReadT = TypeVar("ReadT")
STANDARD_INPUT = 0


def read_fake(config: str | None, *, plan: str | None, seed: int | None) -> FakeConfig:
    """Return what is served: the config of a file, with the plan and the seed that are given instead of its own.

    Raises `BadInput` for a file that cannot be read.
    """
    made = FakeConfig() if config is None else _read(config, read_config)
    if plan is not None:
        made = msgspec.structs.replace(made, plan=_read(plan, read_plan))
    return made if seed is None else msgspec.structs.replace(made, seed=seed)


def _read(path: str, read: Callable[[str], ReadT]) -> ReadT:
    try:
        return read(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        raise BadInput(f"{path}: {one_line(reason)}") from error


def serve(config: FakeConfig, *, host: str, port: int, until_eof: bool = False) -> int:
    """Serve until the first SIGINT or SIGTERM, and return the exit code of a command that a signal ended.

    With `until_eof` the end of standard input ends it too, with exit code 0.

    Raises `BadInput` for an address that is not of loopback or is taken, and without the extra `serve`.
    """
    if not 0 <= port < 65_536:
        raise BadInput(f"--port: expected a number from 0 to 65535, got {port}")
    try:
        server = FakeServer(config, host=host, port=port)
    except ValueError as error:
        raise BadInput(f"--{error}") from error
    return asyncio.run(_serve(server, until_eof=until_eof))


async def _serve(server: FakeServer, *, until_eof: bool) -> int:
    interrupts = Interrupts()
    stopped = asyncio.Event()
    with interrupts.listening(first=stopped.set, at_once=stopped.set), _watching_input(stopped, wanted=until_eof):
        try:
            await server.__aenter__()
        except OSError as error:
            raise BadInput(f"--port: {server.url} cannot be served: {error.strerror}; name another port") from error
        except ModuleNotFoundError as error:
            raise BadInput(str(error)) from error
        try:
            sys.stdout.write(msgspec.json.encode({"url": server.url}).decode() + "\n")
            sys.stdout.flush()
            names = ", ".join(model.name for model in server.config.models)
            sys.stderr.write(f"serving {names}; GET {server.url}/books tells what was charged; Ctrl-C ends it\n")
            await stopped.wait()
        finally:
            await server.__aexit__()
    books = server.books
    sys.stderr.write(f"{books.calls:,} calls, {micro_text(books.charged)} micro-dollars charged\n")
    return interrupts.exit_code or 0


@contextmanager
def _watching_input(stopped: asyncio.Event, *, wanted: bool) -> Generator[None]:
    """Set `stopped` once standard input has ended, within the block. Raises `BadInput` if it cannot be watched."""
    if not wanted:
        yield
        return
    loop = asyncio.get_running_loop()

    def read() -> None:
        if not os.read(STANDARD_INPUT, 4096):
            loop.remove_reader(STANDARD_INPUT)
            stopped.set()

    try:
        loop.add_reader(STANDARD_INPUT, read)
    except OSError as error:  # epoll takes no files.
        raise BadInput("--until-eof: standard input must be a pipe or a terminal") from error
    try:
        yield
    finally:
        loop.remove_reader(STANDARD_INPUT)
