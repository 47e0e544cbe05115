"""Which program `understudy top` shows: the one that runs, one of several by its process, or one by its address."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from actors.command.bad_input import BadInput
from actors.command.top.links import PagePlace, SocketPlace
from actors.dashboard.gate import MIN_TOKEN
from actors.dashboard.socket_folder import sockets
from actors.dashboard.view import shown
from actors.market.webhook import is_loopback

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from actors.command.top.links import LinkPlace, SocketLink
    from actors.dashboard.local import Shown

TOKEN = "UNDERSTUDY_TOKEN"  # noqa: S105 - the name of a variable.
MAX_TOKEN = 4_096


def place_of(where: str | None, *, token_file: str | None, environ: Mapping[str, str] = os.environ) -> LinkPlace:
    """Return where the program is: a process id, the path of a socket, a URL, or None for the one that runs.

    Raises `BadInput` for what is none of these, and for a token that cannot be read.
    """
    if where is not None and "://" in where:
        return PagePlace(checked_url(where), token_of(token_file, environ))
    if token_file is not None:
        raise BadInput("--token-file: only a page has a token; name its URL beside it")
    if where is None or where.isdecimal():
        return RunningPlace(None if where is None else int(where))
    return SocketPlace(Path(where))


class RunningPlace:
    """The program of our user that runs; if it ends, the next one that does."""

    def __init__(self, pid: int | None = None) -> None:
        self._pid = pid
        self._path: Path | None = None

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[SocketLink]:
        """Connect for the length of a block. Raises OSError, and `BadInput` if several programs run."""
        found = [one for one in await running() if self._pid in {None, one[1].pid}]
        if self._path not in {path for path, _ in found}:
            if len(found) > 1:
                raise BadInput(several(found))
            self._path = found[0][0] if found else None
        if self._path is None:
            which = "" if self._pid is None else f" as process {self._pid}"
            raise ConnectionError(f"no program that can be shown runs{which}")
        async with SocketPlace(self._path).open() as link:
            yield link


def several(found: Sequence[tuple[Path, Shown]]) -> str:
    """Return what is said of several programs; those of one process are told apart by their sockets."""
    pids = [one.pid for _, one in found]
    lines = [
        f"  {one.pid if pids.count(one.pid) == 1 else path}  {shown(one.system)}  {shown(one.command)}"
        for path, one in found
    ]
    return "\n".join(["several programs run; name one, as in `understudy top PID`:", *lines])


async def running() -> list[tuple[Path, Shown]]:
    """Return the programs of this user that can be shown, with their sockets."""
    found: list[tuple[Path, Shown]] = []
    for path in await asyncio.to_thread(sockets):
        with suppress(OSError):  # It has ended meanwhile, or is no program of ours.
            async with SocketPlace(path).open() as link:
                found.append((path, link.program))
    return found


def checked_url(url: str) -> str:
    """Return the URL of a page. Raises `BadInput`, which repeats no part of it."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not host or not url.isprintable() or " " in url:
        raise BadInput("the URL must be one such as http://127.0.0.1:8080/dashboard/")
    if parts.fragment or parts.query or parts.username is not None:
        raise BadInput(
            f"the URL must not have the token; put that into --token-file or {TOKEN}, for arguments are seen"
        )
    if parts.scheme == "http" and not is_loopback(host):
        raise BadInput("the URL must be https, unless it is on this machine: the token would be sent in the clear")
    return url


def token_of(path: str | None, environ: Mapping[str, str]) -> str:
    """Return the operator's token, from a file or the environment. Raises `BadInput`, without a part of it."""
    origin = f"--token-file: {path}" if path is not None else TOKEN
    if path is None:
        token = environ.get(TOKEN, "")
        if not token:
            raise BadInput(f"the page of a URL has a token: set {TOKEN} to it, or name a file by --token-file")
    else:
        try:
            with Path(path).open(encoding="utf-8") as file:
                token = file.read(MAX_TOKEN)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is no text"
            raise BadInput(f"{origin}: {reason}") from error
    token = token.strip()
    if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise BadInput(f"{origin}: a token is one line of at least {MIN_TOKEN} characters of ASCII")
    return token
