"""The request to discovery: find the providers of a service."""

from __future__ import annotations

import msgspec

from actors.discovery.offers import ANY_PROVIDER as ANY_PROVIDER
from actors.discovery.offers import Offers as Offers
from actors.providers.provider import ProviderFilter, as_filter
from runtime import Request


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
