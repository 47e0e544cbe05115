"""Every trouble as one small picture: which part of the requests was served as time went on, by each contender. Pure.

The pictures have one scale and one legend, so that they are read side by side: E. R. Tufte's "small multiples"
(Envisioning Information, 1990). They are one file of SVG, light or dark as its reader's system is.
"""

from __future__ import annotations

import html
import statistics
from typing import TYPE_CHECKING

from benchmarks.scenarios.troubles import BY_HAND, OURS, SEED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.scenarios.troubles import Outcome

COLUMNS, WIDTH, HEIGHT = 4, 240, 112
"""The pictures in a row, and the size of each with its words."""
LEFT, TOP, ACROSS, TALL = 36, 22, 192, 60
"""Where in it the curves are."""
LEGEND = 34
BINS = 24
"""The steps of a curve."""
LINES = {SEED: "seed", BY_HAND: "hand", OURS: "ours"}
"""The contenders in the order in which they are drawn, and the class of the curve of each."""
STYLE = """
svg{background:#fff;font:11px system-ui,'DejaVu Sans',sans-serif}text{fill:#1b1f24}.dim{fill:#57606a}
.name{font-weight:600;font-size:12px}.frame{fill:none;stroke:#d0d4d9}.trouble{fill:#fbe3e1}
polyline{fill:none;stroke-linejoin:round}.seed{stroke:#b3261e;stroke-width:1.5;stroke-dasharray:2 2}
.hand{stroke:#9a6700;stroke-width:1.5;stroke-dasharray:6 3}.ours{stroke:#1f5fbf;stroke-width:2.2}
.seed-said{fill:#b3261e}.hand-said{fill:#855300}.ours-said{fill:#1f5fbf}
@media(prefers-color-scheme:dark){svg{background:#121518}text{fill:#e7eaee}.dim{fill:#a3adb8}.frame{stroke:#3a424b}
.trouble{fill:#3a2322}.seed{stroke:#ff8f85}.hand{stroke:#efb74f}.ours{stroke:#86b4ff}
.seed-said{fill:#ff8f85}.hand-said{fill:#efb74f}.ours-said{fill:#86b4ff}}
"""


def plots(found: Mapping[str, Mapping[str, Sequence[Outcome]]]) -> str:
    """Return the pictures of the troubles as one SVG; each curve is of all seeds together."""
    rows = -(-len(found) // COLUMNS)
    width, height = COLUMNS * WIDTH, LEGEND + rows * HEIGHT
    parts = [f"<style>{STYLE}</style>", *legend()]
    for place, (name, by_contender) in enumerate(found.items()):
        x, y = place % COLUMNS * WIDTH, LEGEND + place // COLUMNS * HEIGHT
        parts += (f'<g transform="translate({x} {y})">', *panel(name, by_contender), "</g>")
    told = "The part of the requests that was served as time went on, for each trouble and contender"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{told}">{"".join(parts)}</svg>\n'
    )


def legend() -> Iterator[str]:
    """Say which curve is whose."""
    x = LEFT
    for who, kind in reversed(LINES.items()):
        yield f'<polyline class="{kind}" points="{x},17 {x + 28},17"/>'
        yield f'<text x="{x + 34}" y="21">{html.escape(who)}</text>'
        x += 52 + 7 * len(who)
    yield f'<rect class="trouble" x="{x}" y="10" width="28" height="14"/><text x="{x + 34}" y="21">the trouble</text>'
    x = COLUMNS * WIDTH - 10
    yield f'<text class="dim" x="{x}" y="21" text-anchor="end">served, of the requests begun then; below, of all</text>'


def panel(name: str, by_contender: Mapping[str, Sequence[Outcome]]) -> Iterator[str]:
    """Draw one trouble."""
    outcomes = [one for several in by_contender.values() for one in several]
    seconds = max((begun for one in outcomes for begun, _ in one.begun), default=0.0) or 1.0
    yield f'<text class="name" x="{LEFT}" y="14">{html.escape(name)}</text>'
    spans = [one.span for one in outcomes if one.span is not None]
    if spans:
        left, right = (
            LEFT + ACROSS * min(1.0, statistics.median(ends) / seconds)
            for ends in ([one.at for one in spans], [one.until for one in spans])
        )
        yield f'<rect class="trouble" x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" height="{TALL}"/>'
    yield f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{ACROSS}" height="{TALL}"/>'
    for label, y in (("100 %", TOP + 8), ("0", TOP + TALL)):
        yield f'<text class="dim" x="{LEFT - 4}" y="{y}" text-anchor="end" font-size="9">{label}</text>'
    for who, kind in LINES.items():
        if who in by_contender:
            points = curve(by_contender[who], seconds)
            placed = " ".join(f"{LEFT + ACROSS * x:.1f},{TOP + TALL * (1 - part):.1f}" for x, part in points)
            yield f'<polyline class="{kind}" points="{placed}"/>'
    yield f'<text class="dim" x="{LEFT + ACROSS}" y="{TOP + TALL + 13}" text-anchor="end">{told(seconds)}</text>'
    parts = {who: statistics.mean(one.success for one in several) for who, several in by_contender.items()}
    served = "".join(
        f'<tspan class="{kind}-said" dx="6">{100 * parts[who]:.3g} %</tspan>'
        for who, kind in reversed(LINES.items())
        if who in parts
    )
    yield f'<text x="{LEFT - 6}" y="{TOP + TALL + 13}">{served}</text>'


def curve(outcomes: Sequence[Outcome], seconds: float) -> list[tuple[float, float]]:
    """Return the part of the requests that was served, by when they began, from 0 to 1 in time; gaps are left out."""
    asked, served = [0] * BINS, [0] * BINS
    for outcome in outcomes:
        for begun, is_served in outcome.begun:
            step = min(BINS - 1, int(begun / seconds * BINS))
            asked[step] += 1
            served[step] += is_served
    return [((step + 0.5) / BINS, served[step] / count) for step, count in enumerate(asked) if count]


def told(seconds: float) -> str:
    """Return a length of time for a person.

    >>> told(95.4), told(7_200.0)
    ('95 s', '2 h')
    """
    size, unit = (
        (seconds, "s") if seconds < 180 else (seconds / 60, "min") if seconds < 7_200 else (seconds / 3_600, "h")
    )
    return f"{size:.0f} {unit}"
