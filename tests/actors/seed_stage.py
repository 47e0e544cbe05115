"""Providers for the programs that use the small interfaces as the seed does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors import FunctionTransport, Listing, Provider, ProviderCall

if TYPE_CHECKING:
    from collections.abc import Callable


async def echo(call: ProviderCall) -> Any:
    """Answer with the input."""
    return call.input


def listed(
    name: str, function: Callable[[ProviderCall], Any] = echo, *, price: str = "0.01", check: Any = None, **facts: Any
) -> Listing:
    """List a provider of the service "s" that answers by a function."""
    provider = Provider(name=name, **{"services": {"s"}, "price": price, **facts})
    door = FunctionTransport(function, paid=price != "0", idempotent="no", provider=name, check=check)
    return Listing(provider=provider, transport=lambda: door)
