"""How figures are drawn in a terminal: durations, dollars, bars and sparklines. Pure.

Every text is made of printable characters here, whatever it says: a line is data, and acts on no terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from actors.masking import escaped

if TYPE_CHECKING:
    from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
PARTS = (("█", "green"), ("▓", "yellow"), ("▒", "cyan"))
"""How the settled, the held and the reserved part of a bar are drawn."""


def span(seconds: float) -> str:
    """Return a duration.

    >>> [span(one) for one in (-1.0, 2.34, 90.0, 600.0, 10_000.0, 200_000.0)]
    ['0.0 s', '2.3 s', '90 s', '10 min', '3 h', '2 d']
    """
    size = max(0.0, seconds)
    for least, unit, name in ((172_800, 86_400, "d"), (7_200, 3_600, "h"), (120, 60, "min")):
        if size >= least:
            return f"{size / unit:.0f} {name}"
    return f"{size:.0f} s" if size >= 10 else f"{size:.1f} s"


def latency(seconds: float | None) -> str:
    """Return how long answers take.

    >>> latency(None), latency(0.25), latency(2.5)
    ('-', '250 ms', '2.5 s')
    """
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def dollars(micros: int) -> str:
    """Return an amount of micro-units, with as many digits as tell something.

    >>> [dollars(one) for one in (0, 1_234_567_890, 20_000, 1_500, 7, -20_000)]
    ['$0.00', '$1,234.57', '$0.02', '$0.0015', '$0.000007', '-$0.02']
    """
    size = abs(micros) / 1e6
    digits = 2 if size == 0 or size >= 0.1 else 4 if size >= 0.001 else 6
    text = f"{size:,.{digits}f}"
    while digits > 2 and text.endswith("0"):
        text, digits = text[:-1], digits - 1
    return f"{'-' if micros < 0 else ''}${text}"


def plain(text: str, style: str = "") -> Text:
    r"""Return a text from outside as it is shown: one line, without markup.

    >>> plain("[red]\x1b[31m").plain
    '[red]\\x1b[31m'
    """
    return Text(escaped(text), style=style, no_wrap=True, end="")


def column(text: str, width: int, style: str = "") -> Text:
    """Return a text in so many cells: at the left, or at the right for a negative width.

    >>> column("alder", 7).plain, column("12", -4).plain, column("a long name", 6).plain
    ('alder  ', '  12', 'a lon…')
    """
    text, size = escaped(text), abs(width)
    if cell_len(text) > size:
        text = set_cell_size(text, size - 1) + "…"
    free = " " * (size - cell_len(text))
    return Text(free + text if width < 0 else text + free, style=style, end="")


def row(*cells: Text | tuple[str, int, str] | tuple[str, int]) -> Text:
    """Return columns beside each other, each a text, or what `column` takes."""
    made = Text(no_wrap=True, end="")
    for number, cell in enumerate(cells):
        if number:
            made.append(" ")
        if isinstance(cell, Text):
            made.append_text(cell)
        else:
            made.append_text(column(cell[0], cell[1], cell[2] if len(cell) > 2 else ""))
    return made


def sparkline(values: Sequence[float | None], marked: Sequence[int] = (), *, width: int, style: str = "cyan") -> Text:
    """Return the last `width` values as blocks, the highest as the highest; those that are `marked` in red.

    >>> sparkline([0, 1, None, 4, 2], width=4).plain
    '▃ █▅'
    """
    top = max((one for one in values if one is not None), default=0.0) or 1.0
    made = Text(no_wrap=True, end="")
    for index in range(max(0, len(values) - width), len(values)):
        value = values[index]
        is_marked = index < len(marked) and marked[index] > 0
        if value is None:
            block = BLOCKS[0] if is_marked else " "
        else:
            block = BLOCKS[min(len(BLOCKS) - 1, int(max(0.0, value) / top * len(BLOCKS)))]
        made.append(block, style="red" if is_marked else style)
    return made


def bar(parts: Sequence[int], whole: int, *, width: int) -> Text:
    """Return a bar of parts of a whole; what is not nothing has a cell at least.

    >>> bar((50, 1, 0), 100, width=10).plain, bar((99, 1, 0), 100, width=10).plain
    ('█████▓    ', '█████████▓')
    """
    made = Text(no_wrap=True, end="")
    for number, (value, (block, style)) in enumerate(zip(parts, PARTS, strict=True)):
        kept = sum(1 for later in parts[number + 1 :] if later > 0)
        cells = max(1, round(value / max(1, whole) * width)) if value > 0 else 0
        made.append(block * max(0, min(cells, width - len(made.plain) - kept)), style=style)
    made.append(" " * (width - len(made.plain)), style="on grey23")
    return made
