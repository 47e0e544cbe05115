"""The plan of a run: its market, requests and options, checked before any provider is called."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from actors.command.bad_input import BadInput, check_positive
from actors.command.live_page import NO_PAGE, PageOptions
from actors.command.results_file import STANDARD_OUTPUT
from actors.ledger.journal import MoneyJournal
from actors.ledger.periods import read_cap
from actors.market import MarketError, load_market
from actors.providers.selection import STRATEGIES, SelectionStrategy
from actors.tracing import Tracing
from runtime.persistence import JournalError

if TYPE_CHECKING:
    from actors.command.requests_file import RequestLine
    from actors.market.market import Market

MAX_CONCURRENCY = 10_000


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a run; `budget` is in dollars, `rate_limit` in requests a second, `timeout` in seconds a request.

    The run is kept in `journal`; without one, it cannot go on. `fresh` is how often it was said that all is to be asked
    for, and paid, again. With `ray`, the address of a cluster, its requests are served on nodes.

    Raises `BadInput`, which names the option, for bad values.
    """

    max_concurrency: int = 10
    rate_limit: float | None = None
    budget: str | None = None
    strategy: str = "balanced"
    timeout: float = 30.0
    health_check: bool = False
    seed: int | None = None
    journal: str | None = None
    fresh: int = 0
    retry_failed: bool = False
    retry_unknown: bool = False
    accept_changes: bool = False
    park: bool = False
    ray: str | None = None

    def __post_init__(self) -> None:
        """Refuse bad values."""
        if not 1 <= self.max_concurrency <= MAX_CONCURRENCY:
            raise BadInput(
                f"--max-concurrency: expected a number from 1 to {MAX_CONCURRENCY}, got {self.max_concurrency}"
            )
        if self.journal is None:
            for name in ("fresh", "retry_failed", "retry_unknown", "accept_changes", "park"):
                if getattr(self, name):
                    raise BadInput(f"--{name.replace('_', '-')}: this run is kept nowhere; add --journal FILE")
        check_positive("--rate-limit", self.rate_limit, "requests a second")
        check_positive("--timeout", self.timeout, "seconds")
        if self.strategy not in STRATEGIES:
            raise BadInput(f"--strategy: expected one of {', '.join(STRATEGIES)}, got {self.strategy!r}")
        if self.budget is not None:
            try:
                read_cap(self.budget)
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
    market_path: str = ""
    market_digest: str = ""
    """Tells one market file from another."""
    page: PageOptions = NO_PAGE
    tracing: Tracing | None = None

    @property
    def is_paid(self) -> bool:
        """Whether a provider may cost something."""
        return any(listing.typical_price for listing in self.market.providers)


def read_market(path: str) -> Market:
    """Return the market of a TOML file. Raises `BadInput`, which names the place and what was expected there."""
    try:
        return load_market(path)
    except MarketError as error:
        raise BadInput(str(error)) from error


def tracing_of(share: float | None) -> Tracing | None:
    """Return what records a share of the requests as traces. Raises `BadInput`."""
    try:
        return None if share is None else Tracing(sample=share)
    except (ImportError, ValueError) as error:
        raise BadInput(f"--traces: {error}") from error


def digest_of_market(path: str) -> str:
    """Return a digest of a market file. Raises `BadInput`."""
    try:
        return blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error


def journal_of(out: str, journal: str | None) -> str | None:
    """Return where a run is kept: at `journal`, else beside its results; None if these go to no file.

    >>> journal_of("results.jsonl", None), journal_of("-", None), journal_of("-", "run.journal")
    ('results.jsonl.journal', None, 'run.journal')
    """
    if journal is not None:
        return journal
    is_file = out not in STANDARD_OUTPUT and (not Path(out).exists() or Path(out).is_file())
    return f"{out}.journal" if is_file else None


def check_journal(path: str) -> bool:
    """Tell whether there is a journal; raises `BadInput` if it cannot be used, or another process has it."""
    if not path:
        raise BadInput("--journal: expected the path of a file, got an empty string")
    if not Path(path).exists():
        return False
    try:
        MoneyJournal(path).close()
    except JournalError as error:
        raise BadInput(str(error)) from error
    return True


def check_folder(path: str) -> None:
    """Raise `BadInput` if a journal cannot be made because its directory does not exist."""
    if not Path(path).absolute().parent.is_dir():
        raise BadInput(f"--journal: {path} cannot be written: its directory does not exist")
