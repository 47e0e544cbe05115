"""The short form of a provider: a listing, or a decorator that makes one; its options are typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_type

from actors import Listing, ProviderCall, provider


async def search(call: ProviderCall) -> str:
    return str(call.input)


assert_type(provider("search", search, service="search", price="0.01", rate_limit=5), Listing)
assert_type(provider("search", service="search"), Callable[[Callable[[ProviderCall], Any]], Listing])
provider("search", search)  # error: pyright, mypy
provider("search", search, service="search", price=0.01)  # error: pyright, mypy
provider("search", search, service="search", prize="0.01")  # error: pyright, mypy
provider("search", search, service="search", idempotent="maybe")  # error: pyright, mypy


@provider(service="search", idempotent="repeatable")
async def alder(call: ProviderCall) -> str:
    return str(call.input)


assert_type(alder, Listing)
