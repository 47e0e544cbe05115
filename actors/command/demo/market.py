"""The market of the demo: three providers that fail in different ways, and policies for a run of 15 seconds."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import msgspec

from actors.command.demo.backend import SERVICES, DemoSettings
from actors.command.demo.processes import arguments

if TYPE_CHECKING:
    from collections.abc import Sequence

RUN = 15.0
"""Seconds that the requests are spread over."""
BROWNOUT = (4.0, 4.0)
"""Start and length, in seconds."""

POLICIES = """\
# The waits are short, because the whole run is short. For real providers, leave these sections out or begin
# with the defaults (see the documentation of Retry and BreakerConfig).
[retry]
max_retries = 8
base = 0.1
cap = 1.0

[breaker]
failure_threshold = 5
failure_rate = 0.7
open_for = 1.0
max_open_for = 2.0
"""


class DemoListing(msgspec.Struct, frozen=True, kw_only=True):
    """A provider of the demo: its behaviour, and its entry in the market."""

    settings: DemoSettings
    reputation: int
    response_time: float
    description: str


def demo_listings(requests: int, *, seed: int) -> list[DemoListing]:
    """Return the providers for a run of so many requests.

    The cheapest is the first choice and the least reliable. While it browns out, its load exceeds the rate limit of the
    second provider, so that the third and most expensive one gets the rest.
    """
    rate = requests / RUN
    return [
        DemoListing(
            settings=DemoSettings(
                name="alder",
                price="0.001",
                failure_rate=0.3,
                # A call that ended with a 500 is repeated until its outcome is known. With more of them, the retries
                # would exceed the 10 % of extra load that the retry budget allows.
                unclear_rate=0.2,
                latency=(0.02, 0.08),
                brownout=BROWNOUT,
                seed=seed,
            ),
            reputation=80,
            response_time=0.05,
            description=f"fails 30 % of its calls, and browns out after {BROWNOUT[0]:g} s for {BROWNOUT[1]:g} s",
        ),
        DemoListing(
            settings=DemoSettings(
                name="birch",
                price="0.002",
                failure_rate=0.1,
                latency=(0.04, 0.12),
                rate_limit=max(1.0, rate / 2),
                burst=max(1, int(rate / 4)),
                seed=seed + 1,
            ),
            reputation=85,
            response_time=0.1,
            description=f"fails 10 %, and answers 429 with Retry-After beyond {max(1.0, rate / 2):g} calls/s",
        ),
        DemoListing(
            settings=DemoSettings(name="cedar", price="0.005", failure_rate=0.01, latency=(0.1, 0.25), seed=seed + 2),
            reputation=90,
            response_time=0.2,
            description="fails 1 %, and is the most expensive and slowest",
        ),
    ]


def market_file(listings: Sequence[DemoListing], urls: Sequence[str]) -> str:
    """Return the market file of these providers.

    >>> from actors.market.file import parse_market
    >>> market = parse_market(market_file(demo_listings(300, seed=1), ["http://127.0.0.1:1/"] * 3))
    >>> [str(listing.provider.price) for listing in market.providers], market.breaker.open_for
    (['$0.001', '$0.002', '$0.005'], 1.0)
    """
    services = ", ".join(f'"{service}"' for service in sorted(SERVICES))
    sections = [_section(listing, url, services) for listing, url in zip(listings, urls, strict=True)]
    return "\n".join([*sections, POLICIES])


def _section(listing: DemoListing, url: str, services: str) -> str:
    port = url.rstrip("/").rpartition(":")[2]
    command = shlex.join(["python", "-m", "actors.command.demo.server", "--port", port, *arguments(listing.settings)])
    return f"""\
# {listing.settings.name} {listing.description}. To start it by hand:
# {command}
[[providers]]
name = "{listing.settings.name}"
services = [{services}]
price = "{listing.settings.price}"
reputation = {listing.reputation}
response_time = {listing.response_time}
url = "{url}"
idempotent = "key"
timeout = 3
max_concurrency = 50
"""
