"""`understudy check`: say what a run would meet, before it costs anything: bad lines, missing providers, cost, time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from actors.command.bad_input import one_line
from actors.command.duration import duration_text
from actors.command.forecast import Forecast, forecast, meant
from actors.command.journal_output import refusing_journals, write_lines
from actors.command.plan import Options, digest_of_market, read_market
from actors.command.requests_file import RequestLine, read_lines
from actors.command.resumption import Resumption, read_resumption
from actors.ledger.periods import Cap, read_cap
from actors.masking import escaped
from actors.money import ZERO, Micros

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actors.command.forecast import Unserved
    from actors.market.market import Market

ENDED = {"done": "were answered", "failed": "have failed", "paid": "were paid without an answer that can be had"}
MAX_NUMBERS = 10
"""The lines that are named of a service that no provider offers."""


class Checked(msgspec.Struct, kw_only=True):
    """What is told: the requests that are whole, what is wrong with the others, and what a run would meet and do."""

    good: list[tuple[int, RequestLine]]
    problems: list[str]
    market: Market
    options: Options
    seen: Forecast
    resumed: Resumption | None


def check(market_path: str, requests: str, *, options: Options) -> int:
    """Print what a run would meet; return 0 if every request can be served, else 2. Calls nothing.

    If the journal of `options` is there, it is what a run would meet that goes on with it.
    """
    market = read_market(market_path)
    good: list[tuple[int, RequestLine]] = []
    problems: list[str] = []
    for number, line in read_lines(requests):
        if isinstance(line, ValueError):
            problems.append(f"line {number}: {escaped(one_line(str(line)))}")
        else:
            good.append((number, line))
    resumed, asked = None, good
    if options.journal is not None and Path(options.journal).exists():
        with refusing_journals():
            lines = [line for _, line in good]
            resumed = read_resumption(options.journal, lines, market=digest_of_market(market_path))
    if resumed is not None:
        if not problems:  # With a line that cannot be read, what else has changed is not known.
            problems += [escaped(f"{options.journal}: {why}") for why in resumed.refusals()]
        asked = [one for one, asks in zip(good, resumed.asks, strict=True) if asks]
    seen = forecast(market, asked, rate_limit=options.rate_limit, max_concurrency=options.max_concurrency)
    problems += [_unoffered(service, numbers, market) for service, numbers in seen.unoffered.items()]
    problems += [_unserved(one) for one in seen.unserved]
    checked = Checked(good=good, problems=problems, market=market, options=options, seen=seen, resumed=resumed)
    write_lines(report(checked))
    return 2 if problems else 0


def report(checked: Checked) -> Iterator[str]:
    """Yield what is told, line by line."""
    good, problems, seen = checked.good, checked.problems, checked.seen
    yield from problems
    if problems:
        yield ""
    services = Counter(line.service for _, line in good)
    told = ", ".join(f"{escaped(service)} {count}" for service, count in services.items())
    yield f"requests  {len(good)}{f' ({told})' if told else ''}; {_counted(len(problems), 'problem')}"
    spent = ZERO
    if checked.resumed is not None:
        spent = checked.resumed.spent + checked.resumed.held
        yield f"resuming  {_resuming(checked.resumed)}"
    yield (
        f"cost      from {seen.likely} to {seen.most}: one call for each request, likely at the cheapest provider, "
        "and at most at the dearest"
    )
    budget, of_market = checked.options.budget, checked.market.budget
    budgets = {
        "--budget": None if budget is None else read_cap(budget),
        "the market": None if of_market is None else Cap(of_market, checked.market.budget_renewal),
    }
    for name, cap in budgets.items():
        if cap is not None:
            left = cap.amount - spent if cap.renewal is None else cap.amount
            yield f"budget    {cap} of {name} {_judged(left, seen)}"
    if seen.paces:
        yield f"time      at least {duration_text(seen.paces[0].seconds)}, by {escaped(seen.paces[0].limit)}"
    else:
        yield "time      no limit is known"


def _resuming(resumed: Resumption) -> str:
    over = [f"{count} {ENDED[how]}" for how, count in resumed.over.items()]
    asked = sum(resumed.asks)
    unknown = f" ({resumed.unknown} of them may have been paid)" if resumed.unknown else ""
    held = f", and {resumed.held} is held" if resumed.held else ""
    return f"{', '.join(over) or 'nothing is over'}; {asked} are asked for{unknown}; {resumed.spent} was spent{held}"


def _unoffered(service: str, numbers: Sequence[int], market: Market) -> str:
    lines = ", ".join(map(str, numbers[:MAX_NUMBERS])) + (", ..." if len(numbers) > MAX_NUMBERS else "")
    guess = meant(service, market)
    hint = "" if guess is None else f"; did you mean {guess!r}?"
    return escaped(
        f"{'line' if len(numbers) == 1 else f'{len(numbers)} lines'} {lines}: no provider offers {service!r}{hint}"
    )


def _unserved(one: Unserved) -> str:
    whys = "; ".join(f"{name}: {why}" for name, why in one.whys.items())
    return escaped(one_line(f"line {one.number}: no provider of {one.line.service!r} can be called: {whys}"))


def _judged(budget: Micros, seen: Forecast) -> str:
    if budget >= seen.most or not seen.most:
        return "is enough"
    return "may not be enough" if budget >= seen.likely else "is not enough"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
