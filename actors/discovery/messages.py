"""The request to discovery: find the providers of a service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import msgspec

from actors.discovery.offers import ANY_PROVIDER as ANY_PROVIDER
from actors.discovery.offers import Offers as Offers
from actors.market.listing import Listing
from actors.market.market import DiscoveryConfig  # noqa: TC001 - msgspec resolves the annotations below.
from actors.providers.health import WatchConfig  # noqa: TC001 - as above.
from actors.providers.provider import ProviderFilter, as_filter
from runtime import Message, Request

Registry: TypeAlias = Callable[[str], Awaitable[Sequence[Listing]]]
"""An async function that returns the listings of a service; any exception means that the registry is down."""


class ChangeRegistry(Message, frozen=True, kw_only=True):
    """Have discovery ask another `registry` from now on, and forget what the one before has answered.

    What was observed of the providers is kept, except of those named in `forgotten`.
    """

    registry: Registry
    config: DiscoveryConfig
    watch: WatchConfig
    forgotten: tuple[str, ...] = ()


class Discover(Request[Offers], frozen=True, kw_only=True):
    """Ask for the providers of a service; refused with `NoProvider` if none passes the filter `where`.

    With `healthy_only`, unhealthy providers are dropped, except in a panic.
    """

    service: str
    where: ProviderFilter = ANY_PROVIDER
    healthy_only: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.service, str):
            raise TypeError(f"service must be a str, got {self.service!r:.100}")
        if not isinstance(self.where, ProviderFilter):
            msgspec.structs.force_setattr(self, "where", as_filter(self.where))
        if not isinstance(self.healthy_only, bool):
            raise TypeError(f"healthy_only must be True or False, got {self.healthy_only!r:.100}")
