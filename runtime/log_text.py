"""What a log line says of a text from outside and of an error: one line that acts on nothing, and a short traceback.

Pure. A traceback names places and causes, and no values of variables, among which may be secrets and what people wrote.
"""

from __future__ import annotations

import linecache
import sysconfig
import traceback
from typing import TYPE_CHECKING, Any, cast

from runtime.error_text import described

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, TracebackType

MAX_MESSAGE = 10_000
"""Characters of a message or a field of a line; of a longer one, the middle is left out."""
MAX_ERROR_TEXT = 4_000
"""Characters of what one error of a traceback says."""
MAX_FRAMES = 6
"""Frames of the program's own that are shown of each error: the last ones."""
MAX_ERRORS = 8
"""Errors that a traceback shows: the one that was logged, its causes, and those in its groups."""
OWN_PACKAGES = frozenset({"actors", "runtime"})
LIBRARIES = tuple({sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def harmless(text: str, *, at_most: int = MAX_MESSAGE) -> str:
    r"""Return `text` as one line: what is not printable is shown by its escape, and the middle of a long text left out.

    Among what is not printable are line breaks, the escapes of terminals, and marks that turn the direction of writing.

    >>> harmless("red \x1b[31m and\nnext"), harmless("0123456789", at_most=4)
    ('red \\x1b[31m and\\nnext', '01 ... 89')
    """
    text = _cut(text, at_most)
    return text if text.isprintable() else "".join(map(_shown, text))


def short_traceback(error: BaseException) -> str:
    """Return where an error was raised, with its causes: the program's own frames first, and few of them.

    Of the frames of libraries, the standard library and this package only the last one is shown, if the error was
    raised there. Each error has its text, its notes and at most six own frames, in the order of the calls.
    """
    return "\n".join(_errors(error, "", seen=set()))


def _errors(error: BaseException, lead: str, *, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    yield lead + _lines(described(error))
    for note in _notes_of(error):
        yield f"  {_lines(note)}"
    yield from _places(error.__traceback__)
    because, how = error.__cause__, "caused by "
    if because is None and not error.__suppress_context__:
        because, how = error.__context__, "while handling "
    inner = cast("BaseExceptionGroup[Any]", error).exceptions if isinstance(error, BaseExceptionGroup) else ()
    following = [(because, how), *((one, "in the group: ") for one in inner)]
    for one, word in following:
        if one is not None and id(one) not in seen:
            if len(seen) >= MAX_ERRORS:
                yield "(further errors are left out)"
                return
            yield from _errors(one, word, seen=seen)


def _notes_of(error: BaseException) -> list[str]:
    try:
        return [str(note) for note in getattr(error, "__notes__", ())]
    except Exception:  # noqa: BLE001 - whatever it raises if it is looked at.
        return ["its notes cannot be read"]


def _places(origin: TracebackType | None) -> Iterator[str]:
    frames = list(traceback.walk_tb(origin))
    own = [(frame, line) for frame, line in frames if not is_foreign(frame)]
    shown = own[-MAX_FRAMES:]
    if frames and frames[-1] not in shown:
        shown.append(frames[-1])
    for frame, line in shown:
        code = frame.f_code
        yield f'  File "{_lines(code.co_filename)}", line {line}, in {_lines(code.co_name)}'
        source = linecache.getline(code.co_filename, line).strip()
        if source:
            yield f"    {_lines(source)}"
    if len(frames) > len(shown):
        yield f"  ({len(frames) - len(shown)} frames more)"


def is_foreign(frame: FrameType) -> bool:
    """Tell whether a frame is of this package, of the standard library or of an installed library."""
    name, file = str(frame.f_globals.get("__name__", "")), frame.f_code.co_filename
    return name.partition(".")[0] in OWN_PACKAGES or file.startswith(("<frozen", *LIBRARIES))


def _lines(text: str) -> str:
    """Return a text of an error without control characters; its lines after the first are indented."""
    text = _cut(text, MAX_ERROR_TEXT)
    if text.isprintable():
        return text
    return "\n    ".join("".join(map(_shown, line)) for line in text.split("\n"))


def _cut(text: str, at_most: int) -> str:
    half = at_most // 2
    return text if len(text) <= at_most else f"{text[:half]} ... {text[-half:]}"


def _shown(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()
