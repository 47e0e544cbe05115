"""`understudy check`: say what a run would meet, before it costs anything: bad lines, missing providers, cost, time."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from actors.command.bad_input import one_line
from actors.command.duration import duration_text
from actors.command.forecast import forecast, meant
from actors.command.journal_output import write_lines
from actors.command.requests_file import read_lines
from actors.masking import escaped
from actors.money import Micros, to_micros

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actors.command.forecast import Forecast, Unserved
    from actors.command.plan import Options
    from actors.command.requests_file import RequestLine
    from actors.market.market import Market

MAX_NUMBERS = 10
"""The lines that are named of a service that no provider offers."""


def check(market: Market, requests: str, *, options: Options) -> int:
    """Print what a run would meet; return 0 if every request can be served, else 2. Calls nothing."""
    good: list[tuple[int, RequestLine]] = []
    problems: list[str] = []
    for number, line in read_lines(requests):
        if isinstance(line, ValueError):
            problems.append(f"line {number}: {escaped(one_line(str(line)))}")
        else:
            good.append((number, line))
    seen = forecast(market, good, rate_limit=options.rate_limit, max_concurrency=options.max_concurrency)
    problems += [_unoffered(service, numbers, market) for service, numbers in seen.unoffered.items()]
    problems += [_unserved(one) for one in seen.unserved]
    write_lines(report(good, problems, seen, market=market, options=options))
    return 2 if problems or not good else 0


def report(
    good: Sequence[tuple[int, RequestLine]],
    problems: Sequence[str],
    seen: Forecast,
    *,
    market: Market,
    options: Options,
) -> Iterator[str]:
    """Yield what is told, line by line."""
    yield from problems
    if problems:
        yield ""
    services = Counter(line.service for _, line in good)
    told = ", ".join(f"{escaped(service)} {count}" for service, count in services.items())
    yield f"requests  {len(good)}{f' ({told})' if told else ''}; {_counted(len(problems), 'problem')}"
    yield (
        f"cost      from {seen.likely} to {seen.most}: one call for each request, likely at the cheapest provider, "
        "and at most at the dearest"
    )
    budgets = {"--budget": None if options.budget is None else to_micros(options.budget), "the market": market.budget}
    for name, budget in budgets.items():
        if budget is not None:
            yield f"budget    {budget} of {name} {_judged(budget, seen)}"
    if seen.paces:
        yield f"time      at least {duration_text(seen.paces[0].seconds)}, by {seen.paces[0].limit}"
    else:
        yield "time      no limit is known"


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
    if budget >= seen.most:
        return "is enough"
    return "may not be enough" if budget >= seen.likely else "is not enough"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
