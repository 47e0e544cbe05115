"""`understudy top`: look at a program that runs, in the terminal."""

from __future__ import annotations

import asyncio
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from actors.command.bad_input import BadInput, one_line
from actors.command.top.finding import place_of
from actors.command.top.links import NotAllowed

if TYPE_CHECKING:
    from actors.command.top.links import LinkPlace

HOW = "start it by `understudy run` or `understudy serve`, or with LocalSocket; or name the URL of its page"


def top(where: str | None, *, token_file: str | None) -> int:
    """Show the program until it is left. Raises `BadInput` if there is none, several, or no terminal."""
    if find_spec("textual") is None:
        raise BadInput("`understudy top` needs the extra `tui`: pip install 'understudy[tui]'")
    from actors.command.top.terminal import TopApp  # noqa: PLC0415 - of an extra, which this alone needs.

    place = place_of(where, token_file=token_file)
    asyncio.run(try_to_open(place))
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise BadInput("`understudy top` draws in a terminal: standard input, output and error must be one")
    app = TopApp(place)
    app.run(mouse=False)
    if app.failure is not None:
        raise app.failure
    if app.error is not None:
        raise BadInput(app.error)
    return app.return_code or 0


async def try_to_open(place: LinkPlace) -> None:
    """Connect once, so that what is wrong is said in plain words. Raises `BadInput`."""
    try:
        async with place.open():
            pass
    except NotAllowed as error:
        raise BadInput(str(error)) from error
    except OSError as error:
        raise BadInput(f"{one_line(str(error))}; {HOW}") from error
