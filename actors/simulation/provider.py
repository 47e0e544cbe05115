"""A provider that exists in virtual time alone: it takes its time, fails by plan, and keeps its own side of the books.

What a call meets is decided by `fate`; here that is waited for and booked. The server is a queue kept as numbers: it
knows when each piece of work will be done as soon as it is accepted, also if the client is gone by then. So nothing
of it is left running when a scenario ends.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import random
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from actors.errors.classification import classify, classify_status
from actors.limits.token_bucket import TokenBucket
from actors.market.listing import Listing
from actors.providers.provider import Provider
from actors.simulation.fate import (
    Breaks,
    Draws,
    Fate,
    Hangs,
    Refuses,
    Unreachable,
    Works,
    fate_of_call,
    fate_of_check,
)
from actors.simulation.faults import PriceChange, ProviderFault
from actors.transports.reconciliation import Answered, Finding, NeverRan, UnderWay
from actors.transports.transport import ProviderReply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from actors.errors.families import CallFailed
    from actors.transports.transport import Idempotent, ProviderCall
    from runtime.simulation import Simulation


class SimulatedWork(msgspec.Struct, frozen=True):
    """One piece of work that was accepted: when it is or will be done, what comes of it, and at what cost."""

    done_at: float
    output: Any
    cost: int


def echo(call: ProviderCall) -> Any:
    """Answer a call with its input."""
    return call.input


class SimulatedProvider:
    """One provider of a rehearsal, and the truth about what it did.

    A call costs `price` micro-units and takes from `latency[0]` to `latency[1]` seconds, drawn evenly; an error comes
    after `latency[0]`. `answer` makes the output of a call. `rate_limit`, in calls a second of which `burst` may come
    at once, and `capacity`, the calls it works on at the same time, are limits of its own: beyond the first it answers
    429 with `Retry-After`, beyond the other calls queue with it. What it has accepted it does and charges, also when
    the client has gone. With `idempotent="key"` a key is charged once; it gets the same answer again, and 409 before
    that is ready. With `looks_up` it can be asked what became of a call, and with `cancels` to call one off, which
    costs nothing then. `terms` are further fields of `Provider`, such as `reputation`.

    The faults that strike it are those of the simulation whose `provider` matches its name. Make it in the scenario.
    """

    def __init__(
        self,
        simulation: Simulation,
        name: str,
        *,
        services: Iterable[str],
        price: int = 0,
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
            raise ValueError(f"latency must be two rising seconds from 0 up, got {latency}")
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
        """When each call reached it, in seconds since the run began: not those whose connection was refused."""
        self.charged: dict[str, list[int]] = {}
        """The micro-units of each charge, by idempotency key."""
        self.under_way = 0
        """The calls that clients wait for."""
        self.max_under_way = 0
        self.abandoned = 0
        """The calls that were given up by their clients while it worked on them."""
        self.open_transports = 0
        self._listed: dict[str, Any] = {}
        self._rng = random.Random(f"{simulation.seed}/{name}")
        self._bucket = None if rate_limit is None else TokenBucket(rate=rate_limit, burst=burst)
        self._free_at = None if capacity is None else [0.0] * capacity
        self._by_key: dict[str, SimulatedWork] = {}
        self._accepted: dict[str, SimulatedWork] = {}
        self._transport = (
            (AnsweringTransport if looks_up else SimulatedTransport)
            if not cancels
            else (ReconcilingTransport if looks_up else CancellingTransport)
        )

    @property
    def name(self) -> str:
        """The provider's name."""
        return self.offer.name

    @property
    def services(self) -> frozenset[str]:
        """What it offers."""
        return frozenset(self.offer.services)

    @property
    def price(self) -> int:
        """What a call costs now, in micro-units."""
        changes = [change for change in self.simulation.active(PriceChange) if change.concerns(self.name)]
        return changes[-1].price if changes else self.offer.price

    def transport(self) -> SimulatedTransport:
        """Return a new transport to it."""
        return self._transport(self)

    def listing(self, **terms: Any) -> Listing:
        """Return what a market lists of it now; `terms` are fields of `Listing` that it is listed with from now on.

        A `rate_limit` given here is what the cast keeps to, not what the provider itself insists on.
        """
        self._listed.update(terms)
        offer = msgspec.structs.replace(self.offer, price=self.price)
        return Listing(provider=offer, transport=self.transport, **self._listed)

    # The books.

    @property
    def calls(self) -> int:
        """The calls that reached it, whatever became of them."""
        return len(self.called_at)

    @property
    def income(self) -> int:
        """All that it charged, in micro-units."""
        return sum(sum(charges) for charges in self.charged.values())

    @property
    def paid_twice(self) -> dict[str, list[int]]:
        """The charges of those idempotency keys that were charged more than once."""
        return {key: charges for key, charges in self.charged.items() if len(charges) > 1}

    # What happens to calls.

    def roll(self) -> Draws:
        """Draw all that one call leaves to chance."""
        return Draws(*(self._rng.random() for _ in Draws._fields))

    def faults(self) -> list[ProviderFault]:
        """Return the faults that strike it now."""
        return [fault for fault in self.simulation.active(ProviderFault) if fault.concerns(self.name)]

    def fate_of(self, call: ProviderCall, draws: Draws) -> Fate:
        """Decide on one call: by the faults, and then by its own limits."""
        now = self.simulation.now()
        fate = fate_of_call(self.faults(), now=now, draws=draws)
        if not isinstance(fate, Works):
            return fate
        if self._bucket is not None:
            taken = self._bucket.take(now)
            if not isinstance(taken, tuple):
                return Refuses(429, "Rate limit reached.", retry_after=taken)
            self._bucket, _ = taken
        known = self._by_key.get(call.idempotency_key)
        if known is not None and known.done_at > now:
            return Refuses(409, "A call with this key is still at work.")
        return fate

    def accept(self, call: ProviderCall, fate: Works, draws: Draws) -> SimulatedWork:
        """Take on the work of a call, and charge for it; a key that is known costs nothing again."""
        now = self.simulation.now()
        takes = self.latency[0] + draws.latency * (self.latency[1] - self.latency[0]) + fate.extra
        known = self._by_key.get(call.idempotency_key)
        if known is not None:
            return msgspec.structs.replace(known, done_at=now + takes)
        if self._free_at is None:
            done_at = now + takes
        else:
            done_at = max(now, self._free_at[0]) + takes
            heapq.heapreplace(self._free_at, done_at)
        work = SimulatedWork(done_at, fate.output(self.answer(call)), self.price)
        if work.cost:
            self.charged.setdefault(call.idempotency_key, []).append(work.cost)
        if self.idempotent == "key":
            self._by_key[call.idempotency_key] = work
        self._accepted[call.idempotency_key] = work
        return work

    def find(self, call: ProviderCall) -> Finding:
        """Tell what became of a call."""
        work = self._accepted.get(call.idempotency_key)
        if work is None:
            return NeverRan()
        if work.done_at > self.simulation.now():
            return UnderWay(until=work.done_at)
        return Answered(ProviderReply(output=work.output, cost=work.cost))

    def cancel_call(self, call: ProviderCall) -> Finding:
        """Charge nothing for a call that is at work still, and tell what became of any other."""
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
    """The way to a simulated provider; it classifies what it meets as `HttpTransport` does."""

    ends_when_cancelled = True

    def __init__(self, provider: SimulatedProvider) -> None:
        self.provider = provider
        self.paid = provider.price > 0
        """Whether it charged for calls when this was made, as nobody tells a transport that it no longer does."""
        self._is_closed = False
        provider.open_transports += 1

    @property
    def idempotent(self) -> Idempotent:
        return self.provider.idempotent

    async def call(self, call: ProviderCall) -> ProviderReply:
        """Make one attempt; raises members of `CallFailed`, and KeyError during a `Bug`."""
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
        """Return if the provider is well."""
        self._refuse_if_closed()
        provider = self.provider
        draws = provider.roll()
        fate = fate_of_check(provider.faults(), now=provider.simulation.now(), draws=draws)
        try:
            async with asyncio.timeout(timeout):
                if not isinstance(fate, Works):
                    await self._fail(fate, paid=False)
                await asyncio.sleep(provider.latency[0] + fate.extra)
        except OSError as error:
            raise self._classified(error, paid=False) from error

    async def _reach(self, timeout: float) -> None:  # noqa: ASYNC109 - as `check`.
        """Come through to the provider for a question, or fail as a check would."""
        await self.check(timeout=timeout)

    async def aclose(self) -> None:
        """Close it; a call after this raises RuntimeError."""
        if not self._is_closed:
            self._is_closed = True
            self.provider.open_transports -= 1

    async def _exchange(self, call: ProviderCall) -> ProviderReply:
        provider = self.provider
        draws = provider.roll()
        fate = provider.fate_of(call, draws)
        if not isinstance(fate, Breaks | Unreachable):
            provider.called_at.append(provider.simulation.now())
        if not isinstance(fate, Works):
            await self._fail(fate, paid=self.paid)
        work = provider.accept(call, fate, draws)
        try:
            await asyncio.sleep(work.done_at - provider.simulation.now())
        except asyncio.CancelledError:
            provider.abandoned += 1
            raise
        if fate.is_lost:
            raise ConnectionResetError("the connection broke before the answer came")
        return ProviderReply(output=work.output, cost=work.cost)

    async def _fail(self, fate: Breaks | Unreachable | Hangs | Refuses, *, paid: bool) -> NoReturn:
        """Meet a fate that is no answer."""
        if isinstance(fate, Breaks):
            raise KeyError("choices")
        if isinstance(fate, Hangs):
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(self.provider.latency[0])
        if isinstance(fate, Refuses):
            raise classify_status(
                fate.status,
                provider=self.provider.name,
                retry_after=fate.retry_after,
                body=fate.body,
                paid=paid,
                idempotent=self.idempotent != "no",
            )
        raise ConnectionRefusedError("connection refused")

    def _classified(self, error: OSError, *, paid: bool) -> CallFailed:
        return classify(
            error, provider=self.provider.name, sent=True, paid=paid, idempotent=not paid or self.idempotent != "no"
        )

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise RuntimeError(f"the transport to {self.provider.name!r} is closed; make a new one")

    def __repr__(self) -> str:
        return f"<SimulatedTransport to {self.provider!r}{', closed' if self._is_closed else ''}>"


class AnsweringTransport(SimulatedTransport):
    """The way to one that can be asked what became of a call."""

    async def look_up(self, call: ProviderCall, *, timeout: float) -> Finding:  # noqa: ASYNC109 - of `LooksUp`.
        """Return what became of a call."""
        await self._reach(timeout)
        return self.provider.find(call)


class CancellingTransport(SimulatedTransport):
    """The way to one that can be asked to call off a call."""

    async def cancel(self, call: ProviderCall, *, timeout: float) -> Finding:  # noqa: ASYNC109 - of `Cancels`.
        """Call off a call, and return what became of it."""
        await self._reach(timeout)
        return self.provider.cancel_call(call)


class ReconcilingTransport(AnsweringTransport, CancellingTransport):
    """The way to one that can be asked both."""


def paid_more_than_once(providers: Iterable[SimulatedProvider]) -> dict[str, dict[str, list[int]]]:
    """Return, for each idempotency key that was charged more than once, the charges of each provider."""
    charges: dict[str, dict[str, list[int]]] = {}
    for provider in providers:
        for key, charged in provider.charged.items():
            charges.setdefault(key, {})[provider.name] = charged
    return {key: by_name for key, by_name in charges.items() if sum(map(len, by_name.values())) > 1}
