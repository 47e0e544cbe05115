"""One request, one answer: the seed's `smartRequest`, over the fixed pipeline of a supervisor."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from actors.found import EVERYONE
from actors.money import to_micros
from actors.preflight import NO_REQUIREMENT, Requirement
from actors.requests import SmartRequest
from runtime import ActorRef

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actors.money import Amount
    from actors.provider import ProviderFilter
    from actors.requests import OnUnknown, SmartResult
    from actors.selection import Strategy

ANSWER_GRACE = 1.0
"""Seconds beyond the deadline in which the supervisor can say what had been tried."""


async def smart_request(
    supervisor: ActorRef[SmartRequest],
    *,
    service: str,
    input: Any,  # noqa: A002 - the seed's name.
    budget: Amount | None = None,
    where: ProviderFilter | None = None,
    needs: Requirement = NO_REQUIREMENT,
    strategy: Strategy = "best",
    fallback_strategies: Sequence[Strategy] = (),
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
    known. `account` names an account opened at the supervisor that this request draws on too. `needs`, `weights`,
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
        needs=needs,
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


def in_turn(strategy: Strategy, fallback_strategies: Sequence[Strategy]) -> tuple[Strategy, ...]:
    """Return the strategies of a request, the first in front; raise `TypeError` where one is given for several."""
    if isinstance(fallback_strategies, str):
        raise TypeError(f"fallback_strategies must be several strategies, got the text {fallback_strategies!r}")
    return (strategy, *fallback_strategies)
