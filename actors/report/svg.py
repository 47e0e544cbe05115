"""Pieces of SVG as text: rectangles, lines, labels, and the axis of time. Pure; every text is escaped."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

from actors.masking import escaped

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WIDTH, LEFT, RIGHT = 960, 130, 24
"""Of every picture: its width, and the margins beside the axis of time."""
MAX_LABEL = 60
"""Characters of a label; the rest of a longer text is left out."""


def shown(text: object, *, at_most: int = MAX_LABEL) -> str:
    """Return a text as it may stand in HTML and SVG: on one line, without markup and control characters.

    >>> shown("<img src=x>")
    '&lt;img src=x&gt;'
    """
    plain = escaped(str(text)[: at_most + 1])
    return html.escape(plain if len(plain) <= at_most else plain[: at_most - 1] + "…")


class TimeAxis:
    """Places times on the width of a picture: 0 at the left, `seconds` at the right."""

    def __init__(self, seconds: float) -> None:
        self.seconds = max(seconds, 1e-3)

    def x(self, at: float) -> float:
        """Return where a time stands."""
        share = min(1.0, max(0.0, at / self.seconds))
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def ticks(self) -> list[float]:
        """Return at most ten round times.

        >>> TimeAxis(60.0).ticks()
        [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0]
        """
        step = round_step(self.seconds / 8)
        return [step * number for number in range(int(self.seconds / step + 1e-9) + 1)]


def round_step(least: float) -> float:
    """Return the next number of the row 1, 2, 5, 10, ... that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


def picture(height: float, title: str, parts: Iterable[str]) -> str:
    """Return a picture; `title` tells what it shows to those who do not see it."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{shown(title, at_most=200)}">'
        f"{''.join(parts)}</svg>"
    )


def rect(x: float, y: float, width: float, height: float, kind: str, *, title: str | None = None) -> str:
    """Return a rectangle of a class; a `title` is shown by a pointer that rests on it."""
    told = "" if title is None else f"<title>{shown(title, at_most=200)}</title>"
    return f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{max(width, 0.5):g}" height="{height:g}">{told}</rect>'


def text(x: float, y: float, said: object, *, anchor: str = "start", kind: str = "") -> str:
    """Return a label."""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" class="{kind}">{shown(said)}</text>'


def polyline(points: Sequence[tuple[float, float]], kind: str) -> str:
    """Return a line through points; nothing for none."""
    placed = " ".join(f"{x:g},{y:g}" for x, y in points)
    return f'<polyline class="{kind}" points="{placed}"/>' if points else ""


def time_labels(axis: TimeAxis, y: float) -> str:
    """Return the labels of the axis of time."""
    parts = [text(axis.x(at), y, f"{at:g} s", anchor="middle", kind="dim") for at in axis.ticks()]
    return "".join(parts)
