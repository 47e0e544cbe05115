"""The plan of a run: its market, requests and options, checked before any provider is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actors.command.bad_input import BadInput, check_positive
from actors.market import MarketError, load_market
from actors.money import to_micros
from actors.providers.selection import STRATEGIES, SelectionStrategy

if TYPE_CHECKING:
    from actors.command.requests_file import RequestLine
    from actors.market.market import Market

MAX_CONCURRENCY = 10_000


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a run; `budget` is in dollars, `rate_limit` in requests a second, `timeout` in seconds a request.

    Raises `BadInput`, which names the option, for bad values.
    """

    max_concurrency: int = 10
    rate_limit: float | None = None
    budget: str | None = None
    strategy: str = "balanced"
    timeout: float = 30.0
    health_check: bool = False
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuse bad values."""
        if not 1 <= self.max_concurrency <= MAX_CONCURRENCY:
            raise BadInput(
                f"--max-concurrency: expected a number from 1 to {MAX_CONCURRENCY}, got {self.max_concurrency}"
            )
        check_positive("--rate-limit", self.rate_limit, "requests a second")
        check_positive("--timeout", self.timeout, "seconds")
        if self.strategy not in STRATEGIES:
            raise BadInput(f"--strategy: expected one of {', '.join(STRATEGIES)}, got {self.strategy!r}")
        if self.budget is not None:
            try:
                to_micros(self.budget)
            except ValueError as error:
                raise BadInput(f"--budget: {error}") from error

    @property
    def strategies(self) -> tuple[SelectionStrategy, ...]:
        """The strategies of every request."""
        return tuple(strategy for strategy in STRATEGIES if strategy == self.strategy)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run needs, checked."""

    market: Market
    requests: tuple[RequestLine, ...]
    options: Options


def read_market(path: str) -> Market:
    """Return the market of a TOML file. Raises `BadInput`, which names the place and what was expected there."""
    try:
        return load_market(path)
    except MarketError as error:
        raise BadInput(str(error)) from error
