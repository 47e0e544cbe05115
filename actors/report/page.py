"""The page of a report: one HTML file without scripts, whose data stands in it as JSON beside the pictures. Pure."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from actors.money import Micros, micros_of
from actors.report.recording import BINS, CANCELLED, FAILED, OK, OUTCOMES, THROTTLED, Recording
from actors.report.svg import LEFT, RIGHT, WIDTH, TimeAxis, picture, polyline, rect, shown, text, time_labels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.report.recording import ProviderLane, WorstRequest

LANE = 44
"""The height of the lane of a provider."""
CHART = 110
"""The height of a chart over time."""
WORDS = {OK: "answered", FAILED: "failed", THROTTLED: "429", CANCELLED: "given up"}
CSP = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
STYLE = """
:root{color-scheme:light dark;--ink:#1c1c1c;--dim:#5a5a5a;--paper:#fff;--line:#d0d0d0;--ok:#1a7f45;--failed:#c0232c;
--throttled:#b35900;--cancelled:#6b6b6b;--open:#f6c9cc;--half:#fbe3c2;--isolated:#d9d3ee;--limit:#1f5fbf}
@media(prefers-color-scheme:dark){:root{--ink:#eee;--dim:#b0b0b0;--paper:#161616;--line:#444;--ok:#4cc27d;
--failed:#ff6b73;--throttled:#ffa94d;--cancelled:#a0a0a0;--open:#5a2326;--half:#57401d;--isolated:#3a3263;
--limit:#74a9ff}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1000px;margin:2em auto;
padding:0 1em}h1{font-size:1.4em}h2{font-size:1.1em;margin:1.6em 0 .3em}svg{width:100%;height:auto;display:block}
text{font:12px system-ui,sans-serif;fill:var(--ink)}.dim{fill:var(--dim);color:var(--dim)}
.ok{fill:var(--ok)}.failed{fill:var(--failed)}.throttled{fill:var(--throttled)}.cancelled{fill:var(--cancelled)}
.open{fill:var(--open)}.half-open{fill:var(--half)}.isolated{fill:var(--isolated)}
.limit{fill:none;stroke:var(--limit);stroke-width:1.5}.cost{fill:none;stroke:var(--ok);stroke-width:1.5}.track{fill:none;stroke:var(--line)}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.25em .6em .25em 0;border-bottom:1px solid
var(--line);vertical-align:top}.key span{margin-right:1.2em}.key i{display:inline-block;width:.8em;height:.8em;
margin-right:.35em}div.wide{overflow-x:auto}
"""


def html_page(recording: Recording, *, title: str) -> str:
    """Return the report as one HTML file, of at most about 3 MB whatever was recorded.

    Everything that came from outside stands in it as text. It has no script; its data is JSON, with `<` escaped.
    """
    axis = TimeAxis(recording.seconds)
    ended = recording.request_count
    done = ended - recording.failure_count
    spent = micros_of(int(sum(recording.all.of("cost"))))
    summary = f"{done:,} of {ended:,} requests answered, {recording.call_count:,} calls, {spent}, {axis.seconds:,.1f} s"
    sections = [
        ("Providers", f"{_key()}{_lanes(recording, axis)}"),
        ("Success over time", _success(recording, axis)),
        ("Money over time", _money(recording, axis, spent)),
        ("Latency by provider", _latencies(recording)),
        ("Calls per request", _attempts(recording)),
        ("The worst requests", _worst(recording.worst)),
    ]
    body = "".join(f"<h2>{name}</h2><div class=wide>{content}</div>" for name, content in sections)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" '
        f'content="{CSP}"><meta name="viewport" content="width=device-width"><title>{shown(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{shown(title, at_most=200)}</h1><p>{summary}</p>{body}"
        f'<script type="application/json" id="data">{json_in_html(data_of(recording))}</script></body></html>\n'
    )


def json_in_html(data: Any) -> str:
    r"""Return data as JSON that may stand in a script of HTML: no `<` ends it or begins a comment.

    >>> json_in_html(["</script>"])
    '["\\u003c/script>"]'
    """
    encoded = msgspec.json.encode(data).decode().replace("<", "\\u003c")
    return encoded.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def data_of(recording: Recording) -> dict[str, Any]:
    """Return what the pictures show, ready for JSON."""
    return {
        "seconds": recording.seconds,
        "requests": recording.request_count,
        "failures": recording.failure_count,
        "call_count": recording.call_count,
        "calls": [] if recording.is_binned else recording.calls,
        "attempts": {str(count): requests for count, requests in sorted(recording.attempts.items())},
        "all": {"bin_seconds": recording.all.width, "sums": recording.all.sums},
        "providers": {
            name: {
                "calls": lane.calls,
                "failures": lane.failures,
                "bin_seconds": lane.series.width,
                "sums": {one: [int(count) for count in bins] for one, bins in lane.series.sums.items()},
                "breaker": lane.breaker.points,
                "limit": lane.limit.points,
                "latency": dict(zip(("p50", "p90", "p99"), quantiles_of(lane), strict=True)),
            }
            for name, lane in recording.lanes.items()
        },
        "worst": recording.worst,
    }


def quantiles_of(lane: ProviderLane) -> tuple[float, ...]:
    """Return the latencies that a half, 90 % and 99 % of the calls did not exceed; zeros for no calls."""
    return lane.latency.quantiles(0.5, 0.9, 0.99) if lane.latency.count else (0.0, 0.0, 0.0)


def _key() -> str:
    outcomes = [("ok", "answered"), ("failed", "failed"), ("throttled", "429"), ("cancelled", "given up")]
    states = [("open", "breaker open"), ("half", "half-open"), ("isolated", "isolated"), ("limit", "learned limit")]
    parts = [f'<span><i style="background:var(--{name})"></i>{word}</span>' for name, word in (*outcomes, *states)]
    return f'<p class="key">{"".join(parts)}</p>'


def _lanes(recording: Recording, axis: TimeAxis) -> str:
    lanes = sorted(recording.lanes.items())
    parts: list[str] = []
    for place, (name, lane) in enumerate(lanes):
        top = place * (LANE + 6)
        parts += (text(0, top + 18, name), text(0, top + 34, f"{lane.calls:,} calls", kind="dim"))
        parts += _breaker(lane, axis, top)
        parts.append(rect(LEFT, top, WIDTH - LEFT - RIGHT, LANE, "track"))
        if recording.is_binned:
            parts += _bars(lane, axis, top)
        else:
            parts += (
                rect(axis.x(one.at), top + 8, 1.5, LANE - 16, one.outcome)
                for one in recording.calls
                if one.provider == name
            )
        parts.append(_limit(lane, axis, top))
    height = len(lanes) * (LANE + 6)
    return picture(height + 20, "Calls to each provider over time", (*parts, time_labels(axis, height + 14)))


def _breaker(lane: ProviderLane, axis: TimeAxis, top: float) -> Iterator[str]:
    points = [*lane.breaker.points, (axis.seconds, "")]
    for (at, state), (until, _) in pairwise(points):
        if state != "closed":
            told = f"{state} from {at:.1f} to {until:.1f} s"
            yield rect(axis.x(at), top, axis.x(until) - axis.x(at), LANE, str(state), title=told)


def _bars(lane: ProviderLane, axis: TimeAxis, top: float) -> Iterator[str]:
    most = max(map(sum, zip(*(lane.series.of(one) for one in OUTCOMES), strict=True)), default=0.0) or 1.0
    width = lane.series.width
    for number in range(BINS):
        bottom = top + LANE
        for outcome in OUTCOMES:
            count = lane.series.of(outcome)[number]
            if count:
                height = round((LANE - 4) * count / most, 1)
                bottom -= height
                left, right = axis.x(number * width), axis.x((number + 1) * width)
                yield rect(left, bottom, right - left, height, outcome, title=f"{count:g} {WORDS[outcome]}")


def _limit(lane: ProviderLane, axis: TimeAxis, top: float) -> str:
    rates = [(at, rate) for at, rate in lane.limit.points if isinstance(rate, float)]
    most = max((rate for _, rate in rates), default=0.0)
    if not most:
        return ""
    points: list[tuple[float, float]] = []
    for (at, rate), (until, _) in zip(rates, [*rates[1:], (axis.seconds, 0.0)], strict=True):
        y = round(top + LANE - 2 - (LANE - 8) * rate / most, 1)
        points += ((axis.x(at), y), (axis.x(until), y))
    return polyline(points, "limit") + text(WIDTH - RIGHT, top + 10, f"at most {most:.3g}/s", anchor="end", kind="dim")


def _success(recording: Recording, axis: TimeAxis) -> str:
    done, failed, width = recording.all.of("done"), recording.all.of("failed"), recording.all.width
    most = max(map(sum, zip(done, failed, strict=True))) or 1.0
    parts = [text(0, 14, f"{most:,.0f} requests", kind="dim"), text(0, 28, f"in {width:g} s", kind="dim")]
    for number, counts in enumerate(zip(done, failed, strict=True)):
        bottom, left, right = CHART - 20.0, axis.x(number * width), axis.x((number + 1) * width)
        for count, kind in zip(counts, ("ok", "failed"), strict=True):
            if count:
                height = round((CHART - 26) * count / most, 1)
                bottom -= height
                word = "answered" if kind == "ok" else "failed"
                parts.append(rect(left, bottom, right - left, height, kind, title=f"{count:g} {word}"))
    return picture(CHART, "Requests answered and failed over time", (*parts, time_labels(axis, CHART - 4)))


def _money(recording: Recording, axis: TimeAxis, spent: Micros) -> str:
    total, points = 0.0, [(axis.x(0.0), CHART - 20.0)]
    for number, cost in enumerate(recording.all.of("cost")):
        total += cost
        at = (number + 1) * recording.all.width
        if at <= axis.seconds + recording.all.width:
            points.append((axis.x(at), round(CHART - 20 - (CHART - 30) * total / (int(spent) or 1), 1)))
    parts = (text(0, 14, spent), polyline(points, "cost"), time_labels(axis, CHART - 4))
    return picture(CHART, f"Money spent over time, {spent} in all", parts)


def _latencies(recording: Recording) -> str:
    lanes = [(name, quantiles_of(lane)) for name, lane in sorted(recording.lanes.items()) if lane.latency.count]
    most = max((figures[-1] for _, figures in lanes), default=0.0) or 1.0
    room = WIDTH - LEFT - RIGHT - 230
    parts: list[str] = []
    for place, (name, (p50, p90, p99)) in enumerate(lanes):
        top = place * 24
        parts.append(text(0, top + 15, name))
        for value, kind in ((p99, "half-open"), (p90, "throttled"), (p50, "ok")):
            parts.append(rect(LEFT, top + 4, round(room * value / most, 1), 14, kind))
        told = f"p50 {p50:.3g} s, p90 {p90:.3g} s, p99 {p99:.3g} s"
        parts.append(text(LEFT + room + 8, top + 15, told, kind="dim"))
    return picture(max(24, len(lanes) * 24), "Latency by provider: half, 90 % and 99 % of the calls", parts)


def _attempts(recording: Recording) -> str:
    counts = sorted(recording.attempts.items())
    shown_counts, rest = counts[:20], counts[20:]
    rows = [(f"{count} {'call' if count == 1 else 'calls'}", requests) for count, requests in shown_counts]
    if rest:
        rows.append(("more", sum(requests for _, requests in rest)))
    most = max((requests for _, requests in rows), default=1)
    room = WIDTH - LEFT - RIGHT - 120
    parts: list[str] = []
    for place, (label, requests) in enumerate(rows):
        top = place * 20
        parts += (
            text(0, top + 14, label),
            rect(LEFT, top + 3, round(room * requests / most, 1), 13, "ok"),
            text(LEFT + round(room * requests / most, 1) + 6, top + 14, f"{requests:,}", kind="dim"),
        )
    return picture(max(20, len(rows) * 20), "How many requests took how many calls", parts)


def _worst(requests: list[WorstRequest]) -> str:
    rows: list[str] = []
    for one in requests:
        outcome = "answered" if one.error is None else one.error
        tries = "<br>".join(
            f"{shown(mark.provider)}: {shown(mark.error or 'answered')} at {mark.at:.2f} s, took {mark.latency:.3g} s"
            for mark in one.attempts
        )
        cells = (shown(one.request), shown(one.service), shown(outcome), f"{one.at:.2f} s", f"{one.latency:.3g} s")
        told = "".join(f"<td>{cell}</td>" for cell in (*cells, shown(micros_of(one.cost)), tries))
        rows.append(f"<tr>{told}</tr>")
    names = ("request", "service", "outcome", "began", "took", "cost", "attempts")
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in names)}</tr>{''.join(rows)}</table>"
