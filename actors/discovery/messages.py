"""What discovery is asked."""

from __future__ import annotations

from actors.discovery.found import EVERYONE as EVERYONE
from actors.discovery.found import Offers as Offers
from actors.providers.provider import ProviderFilter
from runtime import Request


class Discover(Request[Offers], frozen=True, kw_only=True):
    """Ask who offers a service; refused with `NoProvider` where nobody who passes the filter does.

    With `healthy_only` those who are to stand back are dropped, but not in a panic.
    """

    service: str
    where: ProviderFilter = EVERYONE
    healthy_only: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.service, str):
            raise TypeError(f"service must be a str, got {self.service!r:.100}")
        if not isinstance(self.where, ProviderFilter):
            raise TypeError(f"where must be a ProviderFilter, got {self.where!r:.100}")
        if not isinstance(self.healthy_only, bool):
            raise TypeError(f"healthy_only must be True or False, got {self.healthy_only!r:.100}")
