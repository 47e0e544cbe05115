"""What callers use: one request with one answer, the providers of a service, and the health of one of them."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, overload

from actors.discovery.messages import Discover
from actors.errors.families import NoProvider, Permanent
from actors.ledger.keys import own_id
from actors.provider_gateway.messages import CheckHealth, Health
from actors.providers.provider import ProviderFilter
from actors.supervisor.messages import GetStatus, SmartRequest
from actors.supervisor.options import DEFAULT_OPTIONS, RequestOptions
from actors.validation import says_option_names
from runtime import ActorRef

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from actors.discovery.discovery import Registry
    from actors.limits.class_queue import Priority
    from actors.money import Amount
    from actors.providers.provider import Predicate, Provider
    from actors.providers.selection import SelectionStrategy
    from actors.supervisor.messages import OnUnknown, SmartResult


ANSWER_GRACE = 1.0
"""Seconds beyond the deadline in which the supervisor can say what had been tried."""


@says_option_names
async def smart_request(
    supervisor: ActorRef[SmartRequest],
    *,
    service: str,
    input: Any,  # noqa: A002 - the seed's name.
    options: RequestOptions = DEFAULT_OPTIONS,
    budget: Amount | None = None,
    where: ProviderFilter | Predicate | None = None,
    strategy: SelectionStrategy | None = None,
    fallback_strategies: Sequence[SelectionStrategy] | None = None,
    health_check: bool | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 - it travels as a deadline.
    account: str | None = None,
    request_id: str | None = None,
    idempotency_key: str | None = None,
    repurchase: bool = False,
    on_unknown: OnUnknown | None = None,
    risk: Amount | None = None,
    priority: Priority | None = None,
) -> SmartResult:
    """Have `service` rendered on `input` by a provider that can, and return the answer.

    Providers that pass `where` (a `ProviderFilter`, or a function that returns True for a provider) are ranked by
    `strategy` ("best" by default; or a function that orders providers, see `rank`). After each failure the next is
    called, by the next of `fallback_strategies`, the last of which holds on until providers, money (`budget`: dollars
    as str, int or Decimal) or time (`timeout`: 30 seconds by default) run out. With `health_check` a provider's health
    is checked first, unless it is known. `account` names an account opened at the supervisor that this request draws on
    too. An `idempotency_key` is paid once: a second request under it gets the answer again, for nothing, unless it says
    `repurchase`. `risk` (dollars, as `budget`) bounds what may be paid twice: other providers are paid besides calls
    whose outcome is unknown as long as these hold no more than that together. By default it is the market's, or 0. With
    `on_unknown="pay_again"` it has no bound but the budget, and `on_unknown="hold"` is a risk of 0.
    `priority` is the class in which it waits for what is short: "high", "normal" (the default) or "low".
    `options` holds these and further options, for requests that are alike; what is given beside it goes before it.

    Raises a member of `CallFailed`: `AllProvidersFailed` with every attempt, `OutcomeUnknown` if a call may have been
    paid for without an answer, `Permanent` for the caller's own mistake, or `NotAdmitted` if no provider was called;
    and `AskTimeout` if the supervisor itself does not answer.
    """
    if not isinstance(supervisor, ActorRef):
        raise TypeError(f"supervisor must be the ref of a Supervisor that was spawned, got {supervisor!r:.100}")
    message = options.request(
        service,
        input,
        budget=budget,
        where=where,
        strategy=strategy,
        fallback_strategies=fallback_strategies,
        health_check=health_check,
        timeout=timeout,
        on_unknown=on_unknown,
        risk=risk,
        account=account,
        # Made here, so that a message that arrives twice is one request.
        request_id=request_id or own_id(random.getrandbits(128)),
        idempotency_key=idempotency_key,
        repurchase=repurchase,
        priority=priority,
    )
    return await supervisor.ask(message, timeout=message.timeout + ANSWER_GRACE)


@says_option_names
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
    predicate: Predicate | None = None,
    healthy_only: bool = True,
    timeout: float = 30.0,  # noqa: ASYNC109 - it travels as a deadline.
) -> list[Provider]:
    """Return the providers of a service that pass these filters, in the registry's order.

    `who` is a `Discovery`, which answers by what its system has observed of them as well, or a registry, which is
    asked afresh and knows only what they declare. With `healthy_only`, a discovery leaves out the providers that are
    isolated, ejected, unreachable or failed their health check, unless they are too many. `predicate` is a filter of
    your own: a function that returns True for a provider to keep. `max_price` is in dollars, as str, int or Decimal;
    `timeout` and `max_response_time` are seconds.

    Raises `NoProvider`, with the reasons, if none passes; from a discovery also `RegistryDown` and `AskTimeout`, and
    from a registry what it raises, and TimeoutError.
    """
    where = ProviderFilter(
        max_price=max_price,
        min_reputation=min_reputation,
        max_response_time=max_response_time,
        min_success_rate=min_success_rate,
        required_capabilities=frozenset(required_capabilities),
        available_only=available_only,
        predicate=predicate,
    )
    if isinstance(who, ActorRef):
        question = Discover(service=service, where=where, healthy_only=healthy_only)
        return list((await who.ask(question, timeout=timeout)).providers)
    async with asyncio.timeout(timeout):
        listings = await who(service)
    prices = {listing.provider.name: listing.typical_price for listing in listings}
    kept, dropped = where.select((listing.provider for listing in listings), prices=prices)
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
    `AskTimeout` if the actor itself does not answer, and `Permanent` if a supervisor has no such provider. A supervisor
    checks all of its providers with the one.
    """
    if provider is None:
        gateway: ActorRef[CheckHealth] = who  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        return await gateway.ask(CheckHealth(max_age=0.0, timeout=timeout / 2), timeout=timeout)
    supervisor: ActorRef[GetStatus] = who  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    for status in await supervisor.ask(GetStatus(check_health=True), timeout=timeout):
        if status.provider.name == provider:
            return Health(asyncio.get_running_loop().time(), problem=status.problem)
    raise Permanent(f"there is no provider {provider!r}")
