"""One request, one answer: the seed's `smartRequest`, over the fixed pipeline of a supervisor."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, overload

from actors.discovery.found import EVERYONE
from actors.discovery.messages import Discover
from actors.errors.families import NoProvider, Permanent
from actors.money import to_micros
from actors.provider_gateway.messages import CheckHealth, Health
from actors.providers.provider import ProviderFilter
from actors.providers.requirement import NO_REQUIREMENT, Requirement
from actors.supervisor.messages import GetStatus, SmartRequest
from runtime import ActorRef

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from actors.discovery.discovery import Registry
    from actors.money import Amount
    from actors.providers.provider import Provider
    from actors.providers.selection import SelectionStrategy
    from actors.supervisor.messages import OnUnknown, SmartResult


ANSWER_GRACE = 1.0
"""Seconds beyond the deadline in which the supervisor can say what had been tried."""


async def smart_request(
    supervisor: ActorRef[SmartRequest],
    *,
    service: str,
    input: Any,  # noqa: A002 - the seed's name.
    budget: Amount | None = None,
    where: ProviderFilter | None = None,
    requirement: Requirement = NO_REQUIREMENT,
    strategy: SelectionStrategy = "best",
    fallback_strategies: Sequence[SelectionStrategy] = (),
    health_check: bool = False,
    timeout: float = 30.0,  # noqa: ASYNC109 - it travels as a deadline.
    account: str | None = None,
    weights: Mapping[str, int] | None = None,
    tenant: str | None = None,
    request_id: str | None = None,
    idempotency_key: str | None = None,
    on_unknown: OnUnknown = "hold",
) -> SmartResult:
    """Have `service` rendered on `input` by whichever provider can, and return the answer.

    Providers that pass `where` are ranked by `strategy`; after each failure the next comes by the next of
    `fallback_strategies`, the last of which holds on until providers, money (`budget`: dollars as str, int or Decimal)
    or time (`timeout` seconds) run out. With `health_check` a provider is asked for its health first, unless that is
    known. `account` names an account opened at the supervisor that this request draws on too. `requirement`, `weights`,
    `tenant` and `on_unknown` are as in `SmartRequest`.

    Raises a member of `CallFailed`: `AllProvidersFailed` with every attempt, `OutcomeUnknown` where a call may have
    been paid for without an answer, `Permanent` for the caller's own mistake, or `NotAdmitted` where nobody was
    called; and `AskTimeout` where the supervisor itself does not answer.
    """
    if not isinstance(supervisor, ActorRef):
        raise TypeError(f"supervisor must be the ref of a Supervisor that was spawned, got {supervisor!r:.100}")
    message = SmartRequest(
        service=service,
        input=input,
        timeout=timeout,
        budget=None if budget is None else to_micros(budget),
        where=where or EVERYONE,
        requirement=requirement,
        strategies=in_turn(strategy, fallback_strategies),
        health_check=health_check,
        account=account,
        weights=dict(weights or {}),
        tenant=tenant,
        # Made here, so that a message that arrives twice is one request.
        request_id=request_id or f"{random.getrandbits(128):032x}",
        idempotency_key=idempotency_key,
        on_unknown=on_unknown,
    )
    return await supervisor.ask(message, timeout=timeout + ANSWER_GRACE)


def in_turn(
    strategy: SelectionStrategy, fallback_strategies: Sequence[SelectionStrategy]
) -> tuple[SelectionStrategy, ...]:
    """Return the strategies of a request, the first in front; raise `TypeError` where one is given for several."""
    if isinstance(fallback_strategies, str):
        raise TypeError(f"fallback_strategies must be several strategies, got the text {fallback_strategies!r}")
    return (strategy, *fallback_strategies)


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
