"""What a thread does at this moment: which actor handles what, and at which line, read from its frames.

Nothing is noted beforehand, so that it costs nothing until it is asked. The frames come from `sys._current_frames`,
whose name is private but which the standard library documents; this is the one use of it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

from runtime.cell.state import CellState
from runtime.envelope import told
from runtime.log_text import is_foreign
from runtime.messages import name_of

if TYPE_CHECKING:
    from types import FrameType

MAX_FRAMES = 1_000
"""Frames that are looked at, from the innermost on: a handler that recurses endlessly has more."""


class Sighting(NamedTuple):
    """What a thread was seen doing: `cell` is None outside of handlers. `frame` is the number of the handler's frame.

    Two sightings of one frame are of one call of a handler.
    """

    cell: CellState | None
    message: str | None
    place: str
    frame: int


def sighting_of(thread: int) -> Sighting | None:
    """Return what a thread does; None if it has ended."""
    innermost = sys._current_frames().get(thread)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - see above.
    if innermost is None:
        return None
    try:
        return seen_in(innermost)
    finally:
        del innermost  # A frame refers to all that its function uses.


def seen_in(innermost: FrameType) -> Sighting:
    """Return what the code of a frame does, as told by the frames that called it."""
    own: FrameType | None = None
    callee: FrameType = innermost
    frame: FrameType | None = innermost
    for _ in range(MAX_FRAMES):
        if frame is None:
            break
        if own is None and not is_foreign(frame):
            own = frame
        cell = _cell_of(frame)
        if cell is not None:
            message = frame.f_locals.get("message", cell.current)
            name = None if message is None else name_of(told(message))
            return Sighting(cell, name, place_of(own or callee), id(callee))
        callee, frame = frame, frame.f_back
    return Sighting(None, None, place_of(own or innermost), id(innermost))


def place_of(frame: FrameType) -> str:
    """Return the file, the line and the function of a frame."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"


def _cell_of(frame: FrameType) -> CellState | None:
    """Return the cell whose mail a frame of the engine handles."""
    if not str(frame.f_globals.get("__name__", "")).startswith("runtime.cell."):
        return None
    found = frame.f_locals.get("cell", frame.f_locals.get("self"))
    return found if isinstance(found, CellState) else None
