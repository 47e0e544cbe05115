"""The overview of the terminal: what is wrong, what it costs, each provider, each account, and the held calls. Pure."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rich.text import Text

from actors.command.top.formats import bar, column, dollars, latency, plain, row, span, sparkline
from actors.command.top.lines import Moment, ScreenLine, ScreenSubject, empty, heading, wait_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.dashboard.view import AccountRow, ChartRow, ProviderRow, View, WaitingRow

BREAKERS = {
    "closed": ("● closed", "green"),
    "open": ("✕ open", "bold red"),
    "half-open": ("◐ half-open", "red"),
    "isolated": ("‖ isolated", "yellow"),
}
SAID_ELSEWHERE = frozenset({"circuit_open", "left_alone", "cap", "held"})
"""The alerts of what providers, accounts and held calls say of themselves."""
MOST_PROBLEMS = 5
RECENT = 12
"""The points of a chart that are the last minute."""
BAR = 24


def overview(moment: Moment) -> list[ScreenLine]:
    """Return the lines of the overview."""
    found = problems(moment)
    lines = [ScreenLine(row((mark, 1, style), plain(text, style))) for mark, style, text in found[:MOST_PROBLEMS]]
    if len(found) > MOST_PROBLEMS:
        lines.append(empty(f"and {len(found) - MOST_PROBLEMS} more"))
    lines += [ScreenLine(figures(moment.view)), *charts(moment.view)]
    lines += [ScreenLine(Text("")), *providers(moment), ScreenLine(Text("")), *accounts(moment.view)]
    if moment.view.held:
        lines += [ScreenLine(Text("")), *held(moment)]
    return lines


def hindered(provider: ProviderRow) -> list[WaitingRow]:
    """Return what holds requests back; places that are all taken are no trouble as long as no request waits for one."""
    return [one for one in provider.waiting if one.reason != "place" or provider.queued]


def problems(moment: Moment) -> list[tuple[str, str, str]]:
    """Return what is wrong, the worst first: a mark, its style, and the words."""
    bad = [("✕", "bold red", text) for text in _bad(moment)]
    return bad + [("!", "yellow", text) for text in _not_well(moment)]


def _bad(moment: Moment) -> Iterator[str]:
    view, now = moment.view, moment.now
    for alert in view.alerts.values():
        if alert.rule not in SAID_ELSEWHERE:
            said = alert.cause or f"{alert.rule} at {alert.value:.3g}"
            yield f"{alert.subject}: {said}, for {span(now - alert.since)}"
    for provider in view.providers.values():
        if provider.breaker in {"open", "half-open"}:
            waits = "; ".join(wait_text(one, now) for one in hindered(provider))
            words = f" “{provider.last_words}”" if provider.last_words else ""
            yield f"{provider.name}: breaker {provider.breaker}{f' ({waits})' if waits else ''}{words}"
        elif provider.left:
            yield f"{provider.name}: left alone: {'; '.join(provider.left)}"
    for account in view.accounts.values():
        if account.paused_cap is None and account.question is not None:
            yield f"{account.name}: asks for more money: question {account.question}"
        elif account.paused_cap is None and account.cap and account.used >= account.cap:
            yield f"{account.name or 'all accounts'}: the cap of {dollars(account.cap)} is used"


def _not_well(moment: Moment) -> Iterator[str]:
    view, now = moment.view, moment.now
    for provider in view.providers.values():
        if provider.breaker == "isolated":
            yield f"{provider.name}: isolated by hand, until it is released"
        elif provider.breaker == "closed" and not provider.left and (waits := hindered(provider)):
            yield f"{provider.name}: {'; '.join(wait_text(one, now) for one in waits)}"
    for account in view.accounts.values():
        if account.paused_cap is not None:
            yield f"{account.name}: paused; its cap is {account.paused_cap or 'none'}"
        elif account.cap and account.cap * 0.8 <= account.used < account.cap and account.question is None:
            part = f"{account.used / account.cap:.0%} of {dollars(account.cap)}"
            yield f"{account.name or 'all accounts'}: {part} is used"
    for total in view.totals.values():
        if total.held:
            amount = sum(one.held for one in _totals(view))
            calls = f"{total.held} call{'' if total.held == 1 else 's'}"
            yield f"{calls} may have been paid: {dollars(amount)} held"


def _totals(view: View) -> list[AccountRow]:
    return [one for one in view.accounts.values() if not one.name]


def figures(view: View) -> Text:
    """Return what it costs and how it goes, in one line."""
    sums, total, chart = _totals(view), view.totals.get(""), view.charts.get("")
    calls = sum(chart.calls[-RECENT:]) if chart else 0
    failed = sum(chart.failed[-RECENT:]) if chart else 0
    seconds = max(1.0, min(RECENT, len(chart.calls)) * chart.step) if chart else 1.0
    told = [
        (dollars(sum(one.settled for one in sums)), "settled"),
        (dollars(sum(one.held for one in sums)), "held"),
        (dollars(sum(one.reserved for one in sums)), "reserved"),
        (f"{calls / seconds:.1f}/s", "requests"),
        (f"{1 - failed / calls:.1%}" if calls else "-", "success"),
        (str(total.under_way if total else 0), "under way"),
        (str(total.waiting if total else 0), "waiting"),
        (f"{total.requests if total else 0:,}", "in all"),
        (f"{total.failed if total else 0:,}", "failed"),
    ]
    made = Text(no_wrap=True, end="")
    for value, name in told:
        made.append(value, style="bold").append(f" {name}  ", style="dim")
    return made


def charts(view: View) -> list[ScreenLine]:
    """Return requests and money over the last minutes."""
    chart = view.charts.get("")
    if chart is None or not chart.calls:
        return []
    most, dearest = max(chart.calls) / chart.step, max(chart.cost) / chart.step * 60
    calls, cost = sparkline(chart.calls, chart.failed, width=60), sparkline(chart.cost, width=60, style="green")
    return [
        ScreenLine(
            row(("requests a second", 19, "dim"), calls, plain(f"at most {most:.1f}; with failures red", "dim"))
        ),
        ScreenLine(row(("dollars a minute", 19, "dim"), cost, plain(f"at most {dollars(round(dearest))}", "dim"))),
    ]


def trouble(provider: ProviderRow) -> int:
    """Return how bad a provider is off, from 0 to 2."""
    if provider.breaker in {"open", "half-open"} or provider.left:
        return 2
    return 1 if provider.breaker == "isolated" or hindered(provider) or provider.problem else 0


def providers(moment: Moment) -> list[ScreenLine]:
    """Return the providers, those that are the worst off first, each with its words."""
    heads = (("provider", 16), ("breaker", 11), ("load", -8), ("limit", -8), ("calls", -7), ("failed", -6))
    more = (("median", -7), ("95 %", -7), ("spent", -10), ("latency", 20))
    lines = [ScreenLine(row(*((name, width, "bold underline") for name, width in (*heads, *more))))]
    rows = sorted(moment.view.providers.items(), key=lambda one: (-trouble(one[1]), one[1].name))
    for key, one in rows:
        lines += _provider(key, one, moment)
    return lines if rows else [*lines, empty("No provider yet.")]


def _provider(key: str, one: ProviderRow, moment: Moment) -> Iterator[ScreenLine]:
    subject = ScreenSubject("provider", key)
    yield ScreenLine(partial(_figures_of, one, moment.view.charts.get(one.name)), subject)
    said = [wait_text(wait, moment.now) for wait in one.waiting[:3]]
    if one.left:
        said.append(f"left alone: {'; '.join(one.left)}")
    if one.first_piece is not None:
        said.append(f"first piece after {latency(one.first_piece)}")
    if one.hidden_calls:
        said.append(f"{one.hidden_calls} requests beyond one a call: its client retries by itself")
    if one.last_error is not None:
        ago = "" if one.last_error_at is None else f"{span(moment.now - one.last_error_at)} ago: "
        said.append(f"{ago}{one.last_error}{f': {one.last_words}' if one.last_words else ''}")
    for text in said:
        yield ScreenLine(partial(plain, f"  {text}", "dim"), subject)


def _figures_of(one: ProviderRow, chart: ChartRow | None) -> Text:
    breaker, style = BREAKERS.get(one.breaker, (one.breaker, "red"))
    return row(
        (one.name, 16, "bold"),
        (breaker, 11, style),
        (f"{one.under_way} + {one.queued}" if one.queued else str(one.under_way), -8),
        (f"{one.rate:.3g}/s" if one.rate else "-", -8),
        (f"{one.calls:,}", -7),
        (f"{one.failures:,}", -6, "red" if one.failures else ""),
        (latency(one.p50), -7),
        (latency(one.p95), -7),
        (dollars(one.spent), -10),
        sparkline(chart.p95, chart.failed, width=20) if chart else plain(""),
    )


def accounts(view: View) -> list[ScreenLine]:
    """Return the accounts as a tree, each with its bar."""
    name = column("account", 24, "bold underline")
    lines = [ScreenLine(row(name, ("settled █ held ▓ reserved ▒", BAR + 3, "bold underline"), ("used", -10), ("", 0)))]
    for key, one, depth in tree_of(view):
        subject = ScreenSubject("account", key) if one.name and not one.is_closed else None
        lines.append(ScreenLine(partial(_account, one, depth), subject))
    return lines if view.accounts else [*lines, empty("No money moves here.")]


def tree_of(view: View) -> list[tuple[str, AccountRow, int]]:
    """Return the accounts in the order of the tree with their depths, the dearest first; no circle is endless."""
    below: dict[tuple[str, str], list[tuple[str, AccountRow]]] = {}
    for key, one in view.accounts.items():
        if one.name:
            below.setdefault((one.ledger, one.parent or ""), []).append((key, one))
    made: list[tuple[str, AccountRow, int]] = []
    seen = set[str]()
    waiting = [(key, one, 0) for key, one in view.accounts.items() if not one.name]
    waiting += [(key, one, 1) for key, one in view.accounts.items() if one.name]
    waiting.reverse()
    while waiting:
        key, one, depth = waiting.pop()
        if key in seen:
            continue
        seen.add(key)
        made.append((key, one, depth))
        children = sorted(below.get((one.ledger, one.name), ()), key=lambda child: (-child[1].used, child[1].name))
        waiting += [(child, found, depth + 1) for child, found in reversed(children)]
    return made


def _account(one: AccountRow, depth: int) -> Text:
    settled = max(0, one.used - one.held - one.reserved) if one.renewal else one.settled
    used = settled + one.held + one.reserved
    cap = "no cap" if one.cap is None else f"of {dollars(one.cap)}{f' {one.renewal}' if one.renewal else ''}"
    notes = [
        f"{dollars(one.held)} held" if one.held else "",
        f"{dollars(one.reserved)} reserved" if one.reserved else "",
        f"{dollars(one.estimated)} estimated" if one.estimated else "",
        "paused" if one.paused_cap is not None else "",
        "closed" if one.is_closed else "",
    ]
    return row(
        ("  " * min(depth, 6) + (one.name or "all accounts"), 24, "bold" if not depth else ""),
        bar((settled, one.held, one.reserved), max(one.cap or 0, used, 1), width=BAR + 3),
        (dollars(used), -10),
        plain(cap, "dim"),
        plain(", ".join(filter(None, notes)), "yellow" if one.held or one.paused_cap is not None else "dim"),
    )


def held(moment: Moment) -> list[ScreenLine]:
    """Return the calls that may have been paid, the oldest first."""
    lines = [heading("held calls: it is unknown if they were paid")]
    for key, one in sorted(moment.view.held.items(), key=lambda found: found[1].since):
        told = row(
            (one.provider, 16, "bold"),
            (dollars(one.amount), -10, "yellow"),
            (f"for {span(moment.at - one.since)}", -10),
            plain(", ".join(one.accounts), "dim"),
        )
        lines.append(ScreenLine(told, ScreenSubject("held", key)))
    return lines
