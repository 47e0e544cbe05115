"""Lets the faults of a simulation strike any transport: that of a program's own function as well as a simulated one."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, NoReturn

import msgspec

from actors.simulation.failing import classified, fail
from actors.simulation.faults import changed_price, faults_of
from actors.simulation.outcome import Draws, Served, outcome_of_call, outcome_of_check
from actors.simulation.provider import SimulatedProvider
from actors.transports.reconciliation import Cancels, LooksUp, Resumes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from actors.errors.families import CallFailed
    from actors.market.listing import Listing
    from actors.simulation.faults import ProviderFault
    from actors.simulation.outcome import Unserved
    from actors.transports.reconciliation import Finding
    from actors.transports.transport import Idempotent, ProviderCall, ProviderReply, Transport
    from runtime.simulation import Simulation


def with_faults(simulation: Simulation, listing: Listing) -> Listing:
    """Return a listing whose transport is struck by the faults of its provider, and is otherwise that of `listing`.

    A call that a fault ends before its work is done, such as one during an `Outage`, does not reach the transport of
    `listing`; `SlowLoris`, `WrongAnswers`, `LostReplies` and `PriceChange` change what that answers. Faults end a call
    at its timeout. Raises ValueError for the listing of a `SimulatedProvider`, which they strike without this.
    """
    if isinstance(getattr(listing.transport, "__self__", None), SimulatedProvider):
        raise ValueError(  # noqa: TRY004 - it is a listing, but of the wrong kind.
            f"faults strike the simulated provider {listing.provider.name!r} already; list it without with_faults"
        )
    name, make = listing.provider.name, listing.transport
    rng = random.Random(f"{simulation.seed}/{name}")
    simulation.declare("provider", name)
    return msgspec.structs.replace(listing, transport=lambda: StruckTransport(simulation, name, make(), rng))


class StruckTransport:
    """The transport to a provider that faults strike; it passes on what they leave alone to `inner`."""

    def __init__(self, simulation: Simulation, provider: str, inner: Transport, rng: random.Random) -> None:
        self.provider = provider
        self.inner = inner
        self.ends_when_cancelled = bool(getattr(inner, "ends_when_cancelled", False))
        self.classify = getattr(inner, "classify", None)
        self._simulation = simulation
        self._rng = rng
        # A transport says what it can do by the methods that it has.
        self.asked_after: tuple[float, ...] = getattr(inner, "asked_after", ())
        if isinstance(inner, LooksUp):
            self.look_up = self._reaching(inner.look_up)
        if isinstance(inner, Cancels):
            self.cancel = self._reaching(inner.cancel)
        if isinstance(inner, Resumes):
            self.resume = self._resuming(inner.resume)

    @property
    def paid(self) -> bool:
        return self.inner.paid

    @property
    def idempotent(self) -> Idempotent:
        return self.inner.idempotent

    async def call(self, call: ProviderCall) -> ProviderReply:
        """Make one attempt. Raises what the transport raises, or what a fault makes of it."""
        deadline = asyncio.get_running_loop().time() + call.timeout
        outcome = outcome_of_call(self._faults(), now=self._simulation.now(), draws=self._roll())
        price = changed_price(self._simulation, self.provider)
        if not isinstance(outcome, Served):
            await self._fail(outcome, deadline, paid=self.paid)
        reply = await self.inner.call(call)
        if outcome.extra or outcome.is_lost:
            await self._delay(outcome, deadline, paid=self.paid)
        if outcome.wrong is not None:
            reply = msgspec.structs.replace(reply, output=outcome.wrong.output)
        return reply if price is None else msgspec.structs.replace(reply, cost=price)

    async def check(self, *, timeout: float) -> None:  # noqa: ASYNC109 - the interface of `Transport`.
        """Return if the provider is healthy and reached. Raises a member of `CallFailed` if not."""
        await self.inner.check(timeout=await self._reach(timeout))

    async def aclose(self) -> None:
        """Close the transport."""
        await self.inner.aclose()

    def _faults(self) -> list[ProviderFault]:
        return faults_of(self._simulation, self.provider)

    def _roll(self) -> Draws:
        return Draws(*(self._rng.random() for _ in Draws._fields))

    async def _reach(self, timeout: float) -> float:  # noqa: ASYNC109 - as `check`.
        """Reach the provider with a question, and return the seconds that are left, or fail as a health check does."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        outcome = outcome_of_check(self._faults(), now=self._simulation.now(), draws=self._roll())
        if not isinstance(outcome, Served):
            await self._fail(outcome, deadline, paid=False)
        if outcome.extra:
            await self._delay(outcome, deadline, paid=False)
        return deadline - loop.time()

    async def _fail(self, outcome: Unserved, deadline: float, *, paid: bool) -> NoReturn:
        """Raise the error of an outcome that is no answer, at the deadline if none comes before."""
        try:
            async with asyncio.timeout_at(deadline):
                await fail(outcome, provider=self.provider, latency=0.0, paid=paid, idempotent=self.idempotent)
        except OSError as error:
            raise self._classified(error, paid=paid) from error

    async def _delay(self, outcome: Served, deadline: float, *, paid: bool) -> None:
        """Let an answer come later, or fail at the deadline or if it is lost."""
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.sleep(outcome.extra)
            if outcome.is_lost:
                raise ConnectionResetError("the connection broke before the answer came")
        except OSError as error:
            raise self._classified(error, paid=paid) from error

    def _classified(self, error: OSError, *, paid: bool) -> CallFailed:
        return classified(error, provider=self.provider, paid=paid, idempotent=self.idempotent)

    def _reaching(self, ask: Callable[..., Awaitable[Finding]]) -> Callable[..., Awaitable[Finding]]:
        """Return a question about a call that has to reach the provider first."""

        async def reach_and_ask(call: ProviderCall, *, timeout: float) -> Finding:  # noqa: ASYNC109 - of `LooksUp`.
            return await ask(call, timeout=await self._reach(timeout))

        return reach_and_ask

    def _resuming(
        self, resume: Callable[[str, ProviderCall], Awaitable[Finding]]
    ) -> Callable[[str, ProviderCall], Awaitable[Finding]]:
        async def reach_and_resume(handle: str, call: ProviderCall) -> Finding:
            left = await self._reach(call.timeout)
            return await resume(handle, msgspec.structs.replace(call, timeout=left))

        return reach_and_resume

    def __repr__(self) -> str:
        return f"<StruckTransport to {self.provider!r} by {self.inner!r}>"
