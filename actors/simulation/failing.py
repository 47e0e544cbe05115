"""Makes a call that gets no answer fail as over the wire, for simulated transports and for those that faults strike."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

from actors.errors.classification import classify_status
from actors.errors.exceptions import classify
from actors.simulation.outcome import BrokenTransport, ErrorReply, NoReply

if TYPE_CHECKING:
    from actors.errors.families import CallFailed
    from actors.simulation.outcome import Unserved
    from actors.transports.transport import Idempotent


async def fail(
    outcome: Unserved,
    *,
    provider: str,
    latency: float,
    paid: bool,
    idempotent: Idempotent,
) -> NoReturn:
    """Raise the error of an outcome that is no answer, after `latency` seconds, or wait for ever."""
    if isinstance(outcome, BrokenTransport):
        raise KeyError("choices")
    if isinstance(outcome, NoReply):
        await asyncio.get_running_loop().create_future()
    await asyncio.sleep(latency)
    if isinstance(outcome, ErrorReply):
        raise classify_status(
            outcome.status,
            provider=provider,
            retry_after=outcome.retry_after,
            body=outcome.body,
            paid=paid,
            idempotent=idempotent != "no",
        )
    raise ConnectionRefusedError("connection refused")


def classified(error: OSError, *, provider: str, paid: bool, idempotent: Idempotent) -> CallFailed:
    """Return the family of an error of the connection to a provider, whose work may have been done."""
    return classify(error, provider=provider, sent=True, paid=paid, idempotent=not paid or idempotent != "no")
