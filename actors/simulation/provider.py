"""A provider in virtual time, which has latency and limits, fails by plan, and keeps books of its own.

The module `outcome` decides what happens to a call; here the result is waited for and booked. The server is a queue of
times: when a piece of work will be done is known as soon as it is accepted, even if the client is gone by then. So no
task of the server is left when a scenario ends.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import math
import random
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from actors.limits.token_bucket import TokenBucket
from actors.market.listing import Listing
from actors.money import ZERO, Amount, Micros
from actors.providers.provider import Provider
from actors.simulation.failing import classified, fail
from actors.simulation.faults import changed_price, faults_of
from actors.simulation.outcome import (
    BrokenTransport,
    ConnectionRefused,
    Draws,
    ErrorReply,
    Served,
    SimulatedOutcome,
    outcome_of_call,
    outcome_of_check,
)
from actors.transports.reconciliation import Answered, Finding, NeverRan, UnderWay
from actors.transports.transport import ProviderReply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from actors.errors.families import CallFailed
    from actors.simulation.faults import ProviderFault
    from actors.simulation.outcome import Unserved
    from actors.transports.transport import Idempotent, ProviderCall
    from runtime.simulation import Simulation


class SimulatedWork(msgspec.Struct, frozen=True):
    """A piece of work that was accepted: when it is done (past or future), its output, and its cost."""

    done_at: float
    output: Any
    cost: Micros


def echo(call: ProviderCall) -> Any:
    """Answer a call with its input."""
    return call.input


class SimulatedProvider:
    """A simulated provider, and the record of what it really did. Make it in the scenario.

    A call costs `price`, in dollars as str, int or Decimal, and takes from `latency[0]` to `latency[1]` seconds, drawn
    evenly; an error comes after `latency[0]`. `answer` makes the output of a call; if it is async, it is awaited before
    that time begins, and a caller that gives up meanwhile is not charged. The provider has limits of its own: beyond
    `rate_limit` calls a second, of which `burst` may come at once, it answers 429 with `Retry-After`; beyond `capacity`
    calls at the same time, calls queue. Work that it has accepted is done and charged even if the client has gone.

    With `idempotent="key"`, an idempotency key is charged once. It gets the same answer again, and 409 before that is
    ready. With `looks_up`, the outcome of a call can be looked up. With `cancels`, a call can be cancelled, and then
    costs nothing. `terms` are further fields of `Provider`, such as `reputation`.

    The faults of the simulation whose `provider` matches its name affect it.
    """

    def __init__(
        self,
        simulation: Simulation,
        name: str,
        *,
        services: Iterable[str],
        price: Amount = 0,
        latency: tuple[float, float] = (0.05, 0.2),
        answer: Callable[[ProviderCall], Any] = echo,
        idempotent: Idempotent = "no",
        rate_limit: float | None = None,
        burst: int = 1,
        capacity: int | None = None,
        looks_up: bool = False,
        cancels: bool = False,
        **terms: Any,
    ) -> None:
        if not 0 <= latency[0] <= latency[1] < math.inf:
            raise ValueError(f"latency must be (shortest, longest) in seconds, both >= 0 and finite, got {latency}")
        if capacity is not None and capacity < 1:
            raise ValueError(f"capacity must be >= 1 call at the same time, or None for no limit, got {capacity}")
        self.simulation = simulation
        self.offer = Provider(name=name, services=frozenset(services), price=price, **terms)
        self.latency = latency
        self.answer = answer
        self.idempotent: Idempotent = idempotent
        self.looks_up = looks_up
        self.cancels = cancels
        self.called_at: list[float] = []
        """When each call reached it, in seconds since the run began, without calls whose connection was refused."""
        self.charged: dict[str, list[Micros]] = {}
        """Each charge, by idempotency key."""
        self.under_way = 0
        """The calls that clients are waiting for."""
        self.max_under_way = 0
        self.abandoned = 0
        """The calls whose clients gave up while the provider worked on them."""
        self.open_transports = 0
        simulation.declare("provider", name)
        self._listed: dict[str, Any] = {}
        self._rng = random.Random(f"{simulation.seed}/{name}")
        self._bucket = None if rate_limit is None else TokenBucket(rate=rate_limit, burst=burst)
        self._free_at = None if capacity is None else [0.0] * capacity
        self._by_key: dict[str, SimulatedWork] = {}
        self._accepted: dict[str, SimulatedWork] = {}
        self._transport = (
            (LookUpTransport if looks_up else SimulatedTransport)
            if not cancels
            else (ReconcilingTransport if looks_up else CancellingTransport)
        )

    @property
    def name(self) -> str:
        """The provider's name."""
        return self.offer.name

    @property
    def services(self) -> frozenset[str]:
        """The services it offers."""
        return frozenset(self.offer.services)

    @property
    def price(self) -> Micros:
        """The cost of a call now."""
        changed = changed_price(self.simulation, self.name)
        return self.offer.price if changed is None else changed

    def transport(self) -> SimulatedTransport:
        """Return a new transport to it."""
        return self._transport(self)

    def listing(self, **terms: Any) -> Listing:
        """Return its listing at the present price; `terms` are fields of `Listing` for this and all later listings.

        A `rate_limit` given here is one that the callers keep to; the provider's own limit is that of its constructor.
        """
        self._listed.update(terms)
        offer = msgspec.structs.replace(self.offer, price=self.price)
        return Listing(provider=offer, transport=self.transport, **self._listed)

    # The books.

    @property
    def calls(self) -> int:
        """The number of calls that reached it, whatever their outcome."""
        return len(self.called_at)

    @property
    def income(self) -> Micros:
        """The sum of its charges."""
        return sum((charge for charges in self.charged.values() for charge in charges), ZERO)

    @property
    def paid_twice(self) -> dict[str, list[Micros]]:
        """The charges of each idempotency key that was charged more than once."""
        return {key: charges for key, charges in self.charged.items() if len(charges) > 1}

    # Calls.

    def roll(self) -> Draws:
        """Draw the random numbers of one call."""
        return Draws(*(self._rng.random() for _ in Draws._fields))

    def faults(self) -> list[ProviderFault]:
        """Return the faults that affect it now."""
        return faults_of(self.simulation, self.name)

    def outcome_of(self, call: ProviderCall, draws: Draws) -> SimulatedOutcome:
        """Return what happens to a call, by the faults and then by the provider's own limits."""
        now = self.simulation.now()
        outcome = outcome_of_call(self.faults(), now=now, draws=draws)
        if not isinstance(outcome, Served):
            return outcome
        if self._bucket is not None:
            taken = self._bucket.take(now)
            if not isinstance(taken, tuple):
                return ErrorReply(429, "Rate limit reached.", retry_after=taken)
            self._bucket, _ = taken
        known = self._by_key.get(call.idempotency_key)
        if known is not None and known.done_at > now:
            return ErrorReply(409, "A call with this key is still at work.")
        return outcome

    def knows(self, call: ProviderCall) -> bool:
        """Tell whether the idempotency key of a call has its answer already."""
        return call.idempotency_key in self._by_key

    def accept(self, call: ProviderCall, outcome: Served, draws: Draws, right: Any) -> SimulatedWork:
        """Accept the work of a call with this right output, and charge for it unless its idempotency key is known."""
        now = self.simulation.now()
        takes = self.latency[0] + draws.latency * (self.latency[1] - self.latency[0]) + outcome.extra
        known = self._by_key.get(call.idempotency_key)
        if known is not None:
            return msgspec.structs.replace(known, done_at=now + takes)
        if self._free_at is None:
            done_at = now + takes
        else:
            done_at = max(now, self._free_at[0]) + takes
            heapq.heapreplace(self._free_at, done_at)
        work = SimulatedWork(done_at, outcome.output(right), self.price)
        if work.cost:
            self.charged.setdefault(call.idempotency_key, []).append(work.cost)
        if self.idempotent == "key":
            self._by_key[call.idempotency_key] = work
        self._accepted[call.idempotency_key] = work
        return work

    def find(self, call: ProviderCall) -> Finding:
        """Return what became of a call."""
        work = self._accepted.get(call.idempotency_key)
        if work is None:
            return NeverRan()
        if work.done_at > self.simulation.now():
            return UnderWay(until=work.done_at)
        return Answered(ProviderReply(output=work.output, cost=work.cost))

    def cancel_call(self, call: ProviderCall) -> Finding:
        """Cancel a call that is at work, which then costs nothing; return what became of any other."""
        finding = self.find(call)
        if not isinstance(finding, UnderWay):
            return finding
        work = self._accepted.pop(call.idempotency_key)
        self._by_key.pop(call.idempotency_key, None)
        if work.cost:
            self.charged[call.idempotency_key].remove(work.cost)
        return NeverRan()

    def __repr__(self) -> str:
        return f"<SimulatedProvider {self.name!r} {self.calls} calls, {self.under_way} under way>"


class SimulatedTransport:
    """The transport to a simulated provider; it classifies errors as `HttpTransport` does."""

    ends_when_cancelled = True
    has_check = True

    def __init__(self, provider: SimulatedProvider) -> None:
        self.provider = provider
        self.paid = provider.price > 0
        """Whether calls cost anything when the transport was made, which does not learn of later prices."""
        self._is_closed = False
        provider.open_transports += 1

    @property
    def idempotent(self) -> Idempotent:
        return self.provider.idempotent

    async def call(self, call: ProviderCall) -> ProviderReply:
        """Make one attempt. Raises a subclass of `CallFailed`, or KeyError during a `Bug`."""
        provider = self.provider
        self._refuse_if_closed()
        provider.under_way += 1
        provider.max_under_way = max(provider.max_under_way, provider.under_way)
        try:
            async with asyncio.timeout(call.timeout):
                return await self._exchange(call)
        except OSError as error:
            raise self._classified(error, paid=self.paid) from error
        finally:
            provider.under_way -= 1

    async def check(self, *, timeout: float) -> None:  # noqa: ASYNC109 - the interface of `Transport`.
        """Return if the provider is healthy. Raises a subclass of `CallFailed` if not."""
        self._refuse_if_closed()
        provider = self.provider
        draws = provider.roll()
        outcome = outcome_of_check(provider.faults(), now=provider.simulation.now(), draws=draws)
        try:
            async with asyncio.timeout(timeout):
                if not isinstance(outcome, Served):
                    await self._fail(outcome, paid=False)
                await asyncio.sleep(provider.latency[0] + outcome.extra)
        except OSError as error:
            raise self._classified(error, paid=False) from error

    async def _reach(self, timeout: float) -> None:  # noqa: ASYNC109 - as `check`.
        """Reach the provider with a question, or fail as a health check would."""
        await self.check(timeout=timeout)

    async def aclose(self) -> None:
        """Close it; a call after this raises RuntimeError."""
        if not self._is_closed:
            self._is_closed = True
            self.provider.open_transports -= 1

    async def _exchange(self, call: ProviderCall) -> ProviderReply:
        provider = self.provider
        draws = provider.roll()
        outcome = provider.outcome_of(call, draws)
        if not isinstance(outcome, BrokenTransport | ConnectionRefused):
            provider.called_at.append(provider.simulation.now())
        if not isinstance(outcome, Served):
            await self._fail(outcome, paid=self.paid)
        right = None if provider.knows(call) else provider.answer(call)
        if inspect.isawaitable(right):
            right = await right
        work = provider.accept(call, outcome, draws, right)
        try:
            await asyncio.sleep(work.done_at - provider.simulation.now())
        except asyncio.CancelledError:
            provider.abandoned += 1
            raise
        if outcome.is_lost:
            raise ConnectionResetError("the connection broke before the answer came")
        return ProviderReply(output=work.output, cost=work.cost)

    async def _fail(self, outcome: Unserved, *, paid: bool) -> NoReturn:
        """Raise the error of an outcome that is no answer, or wait for ever."""
        provider = self.provider
        await fail(outcome, provider=provider.name, latency=provider.latency[0], paid=paid, idempotent=self.idempotent)

    def _classified(self, error: OSError, *, paid: bool) -> CallFailed:
        return classified(error, provider=self.provider.name, paid=paid, idempotent=self.idempotent)

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise RuntimeError(f"the transport to {self.provider.name!r} is closed; make a new one")

    def __repr__(self) -> str:
        return f"<SimulatedTransport to {self.provider!r}{', closed' if self._is_closed else ''}>"


class LookUpTransport(SimulatedTransport):
    """The transport to a provider that can look up the outcome of a call."""

    async def look_up(self, call: ProviderCall, *, timeout: float) -> Finding:  # noqa: ASYNC109 - of `LooksUp`.
        """Return what became of a call."""
        await self._reach(timeout)
        return self.provider.find(call)


class CancellingTransport(SimulatedTransport):
    """The transport to a provider that can cancel a call."""

    async def cancel(self, call: ProviderCall, *, timeout: float) -> Finding:  # noqa: ASYNC109 - of `Cancels`.
        """Cancel a call, and return what became of it."""
        await self._reach(timeout)
        return self.provider.cancel_call(call)


class ReconcilingTransport(LookUpTransport, CancellingTransport):
    """The transport to a provider that can do both."""


def paid_more_than_once(providers: Iterable[SimulatedProvider]) -> dict[str, dict[str, list[Micros]]]:
    """Return, for each idempotency key that was charged more than once, the charges of each provider."""
    charges: dict[str, dict[str, list[Micros]]] = {}
    for provider in providers:
        for key, charged in provider.charged.items():
            charges.setdefault(key, {})[provider.name] = charged
    return {key: by_name for key, by_name in charges.items() if sum(map(len, by_name.values())) > 1}
