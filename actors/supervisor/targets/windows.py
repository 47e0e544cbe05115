"""Which providers have a window that is large enough for a request, as far as that can be told beforehand. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from actors.market.listing import Listing


def window_of(listing: Listing) -> int | None:
    """Return the tokens that a provider takes in one call, as it states them or its model has them; None if unknown."""
    provider = listing.provider
    known = [one for one in (provider.window, provider.max_input_tokens) if one is not None]
    return min(known, default=None)


def too_small(listings: Mapping[str, Listing], least: int) -> dict[str, int]:
    """Return the windows, by name, that are smaller than this; unknown ones are large enough."""
    windows = {name: window_of(listing) for name, listing in listings.items()}
    return {name: window for name, window in windows.items() if window is not None and window < least}


def no_larger(listings: Mapping[str, Listing], refused_at: str) -> dict[str, int]:
    """Return the windows, by name, that are no larger than that of a provider which has refused a request as too long.

    If its own window is not known, that is none but, perhaps, itself.
    """
    listing = listings.get(refused_at)
    window = None if listing is None else window_of(listing)
    return {} if window is None else too_small(listings, window + 1)


def largest(listings: Iterable[Listing]) -> tuple[int, str] | None:
    """Return the largest window and the provider that has it; None if none is known."""
    known = [(window, one.provider.name) for one in listings if (window := window_of(one)) is not None]
    return max(known, default=None)
