"""The seed's `discover` and `check_health`: one question each, for programs that are no actors."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, overload

from actors.discovery import Discover
from actors.errors import NoProvider, Permanent
from actors.gateway import CheckHealth, Health
from actors.provider import ProviderFilter
from actors.requests import GetStatus
from runtime import ActorRef

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.discovery import Registry
    from actors.money import Amount
    from actors.provider import Provider


async def discover(
    who: ActorRef[Discover] | Registry,
    *,
    service: str,
    max_price: Amount | None = None,
    min_reputation: float = 0.0,
    max_response_time: float | None = None,
    min_success_rate: float = 0.0,
    required_capabilities: Iterable[str] = (),
    available_only: bool = True,
    healthy_only: bool = True,
    timeout: float = 30.0,  # noqa: ASYNC109 - it travels as a deadline.
) -> list[Provider]:
    """Return the providers of a service that pass these filters, in the registry's order.

    `who` is a `Discovery`, which answers by what its system has observed of them as well, or a registry, which is
    asked afresh and knows only what they declare. With `healthy_only`, a discovery leaves out those who are isolated,
    ejected, unreachable or failed their health check, unless those are too many. `max_price` is in dollars, as str, int
    or Decimal; `timeout` and `max_response_time` are seconds.

    Raises `NoProvider`, with the reasons, where nobody passes; from a discovery also `RegistryDown` and `AskTimeout`,
    and from a registry what it raises, and TimeoutError.
    """
    where = ProviderFilter(
        max_price=max_price,
        min_reputation=min_reputation,
        max_response_time=max_response_time,
        min_success_rate=min_success_rate,
        required_capabilities=frozenset(required_capabilities),
        available_only=available_only,
    )
    if isinstance(who, ActorRef):
        question = Discover(service=service, where=where, healthy_only=healthy_only)
        return list((await who.ask(question, timeout=timeout)).providers)
    async with asyncio.timeout(timeout):
        listings = await who(service)
    kept, dropped = where.select(listing.provider for listing in listings)
    if not kept:
        raise NoProvider(service, offered=len(listings), dropped=dropped)
    return kept


@overload
async def check_health(
    who: ActorRef[GetStatus],
    provider: str,
    *,
    timeout: float = ...,  # noqa: ASYNC109 - as below.
) -> Health: ...
@overload
async def check_health(
    who: ActorRef[CheckHealth],
    provider: None = None,
    *,
    timeout: float = ...,  # noqa: ASYNC109 - as below.
) -> Health: ...
async def check_health(
    who: ActorRef[GetStatus] | ActorRef[CheckHealth],
    provider: str | None = None,
    *,
    timeout: float = 5.0,  # noqa: ASYNC109 - it travels as a deadline.
) -> Health:
    """Check the health of a provider now: named to a supervisor, or without a name at its gateway.

    `timeout` is in seconds, for the answer; a provider that does not answer its check in time is unhealthy. Raises
    `AskTimeout` where the actor itself does not answer, and `Permanent` where a supervisor has no such provider. A
    supervisor checks all of its providers with the one.
    """
    if provider is None:
        gateway: ActorRef[CheckHealth] = who  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        return await gateway.ask(CheckHealth(max_age=0.0, timeout=timeout / 2), timeout=timeout)
    supervisor: ActorRef[GetStatus] = who  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    for status in await supervisor.ask(GetStatus(check_health=True), timeout=timeout):
        if status.provider.name == provider:
            return Health(asyncio.get_running_loop().time(), problem=status.problem)
    raise Permanent(f"there is no provider {provider!r}")
