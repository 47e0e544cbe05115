"""What one node may do of what a market allows, so that all nodes together keep its limits. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actors.errors.families import AllProvidersFailed
from actors.market.listing import SharedQuota
from actors.money import micros_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from actors.errors.families import Attempt
    from actors.limits.waiting import Waiting
    from actors.market.listing import Listing
    from actors.market.market import Market
    from actors.supervisor.messages import SmartResult, TargetStatus

BREAKER_STATES = ("closed", "half-open", "open", "isolated")


def seats_of(market: Market, nodes: int) -> int:
    """Return how many nodes can serve a market: no provider may get more calls at once than its `max_concurrency`."""
    return max(1, min([nodes, *(one.max_concurrency for one in market.providers)]))


def with_leased_limits(market: Market) -> Market:
    """Return a market whose stated limits are all quotas, which nodes lease parts of.

    A provider that draws on a quota besides limits of its own keeps those; each seat gets an equal part (`for_seat`).
    """
    quotas = dict(market.quotas)
    listings: list[Listing] = []
    for listing in market.providers:
        limits = listing.all_limits()
        if limits and listing.quota is None:
            name = _free_name(f"limits of {listing.provider.name}", quotas)
            quotas[name] = SharedQuota(limits=limits, headroom=listing.headroom)
            listing = msgspec.structs.replace(listing, rate_limit=None, burst=1, limits=(), quota=name)  # noqa: PLW2901
        listings.append(listing)
    return msgspec.structs.replace(market, providers=listings, quotas=quotas)


def for_seat(market: Market, seat: int, seats: int) -> Market:
    r"""Return the market of the seat of that number, from 0, of so many: its parts add up to the whole.

    >>> from actors.market import parse_market
    >>> text = '[[providers]]\nname = "alder"\nservices = ["a"]\nurl = "http://127.0.0.1:1/"\nmax_concurrency = 5'
    >>> [for_seat(parse_market(text), seat, 3).providers[0].max_concurrency for seat in range(3)]
    [2, 2, 1]
    """
    return msgspec.structs.replace(market, providers=[_part_of(one, seat, seats) for one in market.providers])


def _part_of(listing: Listing, seat: int, seats: int) -> Listing:
    places = listing.max_concurrency // seats + (seat < listing.max_concurrency % seats)
    rate = None if listing.rate_limit is None else listing.rate_limit / seats
    limits = tuple(
        msgspec.structs.replace(one, rate=one.rate / seats, burst=max(1, one.burst // seats)) for one in listing.limits
    )
    burst = max(1, listing.burst // seats)
    return msgspec.structs.replace(listing, max_concurrency=places, rate_limit=rate, burst=burst, limits=limits)


def _free_name(name: str, taken: dict[str, SharedQuota]) -> str:
    while name in taken:
        name += "'"
    return name


def of_all_nodes(statuses: Iterable[Sequence[TargetStatus]]) -> tuple[TargetStatus, ...]:
    """Return the state of every provider over all nodes: sums, and of states the worst."""
    merged: dict[str, TargetStatus] = {}
    for one in (one for status in statuses for one in status):
        name = one.provider.name
        merged[name] = _together(merged[name], one) if name in merged else one
    return tuple(merged.values())


def _together(one: TargetStatus, other: TargetStatus) -> TargetStatus:
    dearest = [cost for cost in (one.dearest, other.dearest) if cost is not None]
    checked = [healthy for healthy in (one.healthy, other.healthy) if healthy is not None]
    return msgspec.structs.replace(
        one,
        breaker=max(one.breaker, other.breaker, key=BREAKER_STATES.index),
        under_way=one.under_way + other.under_way,
        calls=one.calls + other.calls,
        failures=one.failures + other.failures,
        trips=one.trips + other.trips,
        spent=micros_of(one.spent + other.spent),
        healthy=all(checked) if checked else None,
        problem=one.problem or other.problem,
        left=tuple(dict.fromkeys((*one.left, *other.left))),
        dearest=max(dearest, default=None),
        waiting=(*one.waiting, *other.waiting),
        queued=one.queued + other.queued,
        hidden_calls=one.hidden_calls + other.hidden_calls,
        first_piece=other.first_piece if one.first_piece is None else one.first_piece,
        piece_interval=other.piece_interval if one.piece_interval is None else one.piece_interval,
    )


def by_own_clock(status: TargetStatus, ahead: float) -> TargetStatus:
    """Return a state by the clock of this loop, which is `ahead` of the node's by so many seconds."""
    waiting = tuple(_shifted_wait(one, ahead) for one in status.waiting)
    return msgspec.structs.replace(status, now=status.now + ahead, waiting=waiting)


def _shifted_wait(one: Waiting, ahead: float) -> Waiting:
    since = None if one.since is None else one.since + ahead
    until = None if one.until is None else one.until + ahead
    return msgspec.structs.replace(one, since=since, until=until)


def result_by_own_clock(result: SmartResult, ahead: float) -> SmartResult:
    """Return a result whose failed calls began by the clock of this loop."""
    if not result.failures:
        return result
    return msgspec.structs.replace(result, failures=_shifted(result.failures, ahead))


def error_by_own_clock(error: Exception, ahead: float) -> Exception:
    """Return an error whose failed calls began by the clock of this loop."""
    if isinstance(error, AllProvidersFailed):
        error.attempts = _shifted(error.attempts, ahead)
    return error


def _shifted(attempts: Iterable[Attempt], ahead: float) -> tuple[Attempt, ...]:
    return tuple(msgspec.structs.replace(one, started=one.started + ahead) for one in attempts)
