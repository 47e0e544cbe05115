"""Makes the listing of a provider from a function in one call, or with a decorator."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any, TypedDict, cast, overload

from typing_extensions import Unpack

from actors.limits.quota import RateLimit  # noqa: TC001 - inspect.signature evaluates it.
from actors.market.listing import Listing
from actors.money import Amount  # noqa: TC001 - inspect.signature evaluates it.
from actors.providers.provider import Provider
from actors.spelling import unknown_name
from actors.tariffs.tariff import Tariff  # noqa: TC001 - as above.
from actors.transports.function import FunctionTransport
from actors.transports.own_reading import Classify  # noqa: TC001 - inspect.signature evaluates it.
from actors.transports.transport import Idempotent, ProviderCall

Function = Callable[[ProviderCall], Any]


class OfferOptions(TypedDict, total=False):
    """What a provider offers, beside its services and price; see `Provider`."""

    reputation: float
    response_time: float
    success_rate: float
    available: bool
    capabilities: Iterable[str]
    address: str
    max_input_tokens: int | None
    max_inputs: int | None
    window: int | None


class FunctionOptions(TypedDict, total=False):
    """How its function is called; see `FunctionTransport`."""

    paid: bool
    idempotent: Idempotent
    check: Callable[[float], Awaitable[None]] | None
    ends_when_cancelled: bool
    secrets: Collection[str]
    client_retries: bool | None
    classify: Classify | None


class ListingOptions(TypedDict, total=False):
    """How much it may be called; see `Listing`."""

    timeout: float
    max_concurrency: int
    rate_limit: float | None
    burst: int
    limits: tuple[RateLimit, ...]
    headroom: float
    learning: bool
    quota: str | None
    price_tolerance: float | None
    on_unknown: Any
    held_for: float | None
    budget: Amount | None
    tariff: Tariff | None
    max_output: int | None
    weight: float
    cache_window: float


class ProviderOptions(OfferOptions, FunctionOptions, ListingOptions, total=False):
    """Every option of `provider`; their meanings and defaults are those of the objects that it makes."""

    model: str


@overload
def provider(
    name: str | None = None, /, *, service: str | Iterable[str], price: Amount = 0, **options: Unpack[ProviderOptions]
) -> Callable[[Function], Listing]: ...
@overload
def provider(
    name: str,
    function: Function,
    /,
    *,
    service: str | Iterable[str],
    price: Amount = 0,
    **options: Unpack[ProviderOptions],
) -> Listing: ...
def provider(
    name: str | None = None,
    function: Function | None = None,
    /,
    *,
    service: str | Iterable[str] = (),
    price: Amount = 0,
    **options: Any,
) -> Listing | Callable[[Function], Listing]:
    """Return the listing of a provider that is reached through `function(call)`; without it, a decorator of one.

    `service` is the service that it offers, or several; `price` is dollars per call, as text, int or Decimal. The name
    of a decorated function is that of its provider, if no other is given.

    The options are those of `Provider`, `FunctionTransport` and `Listing`, which say what they mean. As in a market
    file, calls are `paid` if the price is above 0, and `idempotent` is "no" unless something else is stated.

    Raises TypeError for an option that does not exist, and TypeError or ValueError for a value that cannot be.

    >>> alder = provider("alder", lambda call: call.input.upper(), service="uppercase", price="0.002", rate_limit=40)
    >>> alder.provider.name, alder.provider.price, alder.rate_limit
    ('alder', Micros(2000), 40)
    >>> @provider(service={"greeting"}, idempotent="repeatable")
    ... async def birch(call):
    ...     return f"Hello, {call.input}"
    >>> birch.provider.name, birch.transport()
    ('birch', FunctionTransport(birch, paid=False, idempotent='repeatable'))
    """
    if name is not None and not isinstance(name, str):
        raise TypeError(
            f'the first argument of provider() is a name, got {name!r:.100}; write provider("alder", function, '
            'service="search"), or @provider(service="search") above the function'
        )
    _refuse_unknown(options)
    services = {service} if isinstance(service, str) else frozenset(service)
    if not services:
        raise TypeError('provider() needs the service that is offered, such as service="search"')

    def listed(function: Function) -> Listing:
        return _listing(name, function, services, price, options)

    return listed if function is None else listed(function)


def _listing(
    name: str | None, function: Function, services: Iterable[str], price: Amount, options: dict[str, Any]
) -> Listing:
    def chosen(kind: type) -> dict[str, Any]:
        return {key: value for key, value in options.items() if key in kind.__annotations__}

    if name is None:
        name = cast("str", getattr(function, "__name__", ""))
    offer = chosen(OfferOptions) | {key: options[key] for key in ("model",) if key in options}
    offered = Provider(name=name, services=frozenset(services), price=price, **offer)
    reached = {"paid": offered.price > 0, "idempotent": "no"} | chosen(FunctionOptions)
    make = functools.partial(FunctionTransport, function, **reached)
    make()  # It opens nothing until it is used; but a mistake is reported here, and not at the first call.
    return Listing(provider=offered, transport=make, **chosen(ListingOptions))


def _refuse_unknown(options: dict[str, Any]) -> None:
    known = ("service", "price", *ProviderOptions.__annotations__)
    for option in options:
        if option not in known:
            raise TypeError(f"provider() has {unknown_name('option', option, known)}")
