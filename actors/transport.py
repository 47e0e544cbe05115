"""The door between the cast and a provider: one call out, one reply or one classified error back.

A transport knows how to reach one provider and nothing else: no retry, no breaker, no budget. Whoever owns it
decides those, from what the transport declares about itself and from the error that it raises.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import msgspec

from actors.checks import check_count, check_text
from actors.classification import classify
from actors.cut import CallTimedOut, Cuts
from actors.errors import CallFailed
from actors.limit_headers import HeardLimit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Idempotent = Literal["key", "nature", "no"]
"""Whether a call whose fate is unknown may be repeated.

"key": yes, and it is charged once, because the provider honours idempotency keys. "nature": yes, because doing the
work twice harms nobody, though a repetition may be charged again. "no": it has to be reconciled first.
"""


class ProviderCall(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at one logical request.

    `request_id` and `idempotency_key` stay the same over all attempts at a request; `max_cost` is what is reserved
    for this attempt, in micro-units; `timeout` is for the whole attempt, in seconds. `provider` is the name by which
    whoever is called is listed.
    """

    service: str
    input: Any
    request_id: str
    idempotency_key: str
    max_cost: int
    timeout: float
    provider: str | None = None

    def __post_init__(self) -> None:
        """Refuse a call that could never succeed."""
        if self.max_cost < 0:
            raise ValueError(f"max_cost must be >= 0 micro-units, got {self.max_cost}")
        if not self.timeout > 0:
            raise ValueError(f"timeout must be > 0 seconds, got {self.timeout}")


class ProviderReply(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider answered, and what it says it charged in micro-units; None where it does not say.

    `weights` is what the call used of the provider's limits, such as `{"tokens": 870}`, and `limits` what the provider
    says of those, where they are told. `wire_calls` are the requests that went out for this one attempt: more than 1
    where what lies below the transport retries on its own, 0 where it answered from a cache.
    """

    output: Any
    cost: int | None = None
    wire_calls: int = 1
    weights: dict[str, int] = {}
    limits: tuple[HeardLimit, ...] = ()

    def __post_init__(self) -> None:
        if self.cost is not None and type(self.cost) is not int:
            raise TypeError(f"cost must be a whole number of micro-units or None, got {self.cost!r}; see to_micros")
        if type(self.wire_calls) is not int or self.wire_calls < 0:
            raise ValueError(f"wire_calls must be >= 0 requests, and whole, got {self.wire_calls!r}")
        if self.weights or self.limits or type(self.weights) is not dict or type(self.limits) is not tuple:
            check_told(self.weights, self.limits)


def check_told(weights: object, limits: object) -> None:
    """Raise for what cannot be what a call has used of limits, or was told of them."""
    if not isinstance(weights, Mapping):
        raise TypeError(f'weights must be like {{"tokens": 870}}, got {weights!r:.100}')
    for dimension, weight in cast("Mapping[object, object]", weights).items():
        check_text("a dimension of weights", dimension)
        check_count(f"the weight in {dimension}", weight, least=0)
    if not isinstance(limits, tuple) or not all(isinstance(one, HeardLimit) for one in cast("tuple[object]", limits)):
        raise TypeError(f"limits must be a tuple of HeardLimit, got {limits!r:.100}")


def check_declared(paid: object, idempotent: object) -> None:
    """Raise for what a transport cannot declare of itself: on it depends whether somebody is paid twice."""
    if not isinstance(paid, bool):
        raise TypeError(f"paid must be True or False, got {paid!r}")
    if idempotent not in {"key", "nature", "no"}:
        raise ValueError(f'idempotent must be "key", "nature" or "no", got {idempotent!r}')


def check_function(function: object) -> None:
    """Raise `TypeError` for what cannot be called with one call, as far as can be told before."""
    if not callable(function):
        raise TypeError(f"a FunctionTransport needs an async function of one ProviderCall, got {function!r}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # Of some callables nobody can tell.
    try:
        signature.bind(None)
    except TypeError as error:
        name = getattr(function, "__qualname__", repr(function))
        raise TypeError(f"a FunctionTransport calls its function with one ProviderCall: {name}: {error}") from None


def awaitable(outcome: Any) -> Awaitable[Any]:
    """Return what a function has returned; raise `TypeError` where it is a result, and not on its way to one."""
    if not inspect.isawaitable(outcome):
        raise TypeError(f"its function returned {outcome!r:.100} at once; it must be an async function")
    return outcome


class Transport(Protocol):
    """The way to one provider. Implement it to speak a protocol that this package does not know."""

    @property
    def paid(self) -> bool:
        """Whether a call that ran is charged."""
        ...

    @property
    def idempotent(self) -> Idempotent:
        """Whether a call whose fate is unknown may be repeated, and why."""
        ...

    async def call(self, call: ProviderCall) -> ProviderReply:
        """Make one attempt within `call.timeout` seconds. Raises members of `CallFailed` only; others are bugs.

        A transport that ends soon after it is cancelled, whatever it waits for, may say so by an attribute
        `ends_when_cancelled = True`: its calls then need no task of their own, and whoever gives one up waits for its
        end. By default a call that will not end is left behind.
        """
        ...

    async def check(self, *, timeout: float) -> None:  # noqa: ASYNC109 - how long is the transport's own affair.
        """Return if the provider is healthy, within `timeout` seconds; raises a member of `CallFailed` if not."""
        ...

    async def aclose(self) -> None:
        """Close every connection. Safe to call twice; calls made after it are bugs."""
        ...


class FunctionTransport:
    """Puts a coroutine function, such as a call of some SDK, behind the door.

    `function(call)` returns a `ProviderReply`, or any other value, which becomes the output of a reply without a
    stated cost. What it raises is classified as the error of a call that was sent: nobody can see from outside
    whether an unknown function failed before it reached its provider. It may raise members of `CallFailed` itself
    where it knows better; those pass through. An SDK that retries on its own hides calls: state `wire_calls` in the
    reply and in the error where it tells them, or switch its retries off.

    Its errors name the provider as it is listed, or as given here.

    `check(timeout)` tells health, if given; without it the provider counts as healthy. Say `ends_when_cancelled` of a
    function that does, as one does that awaits sockets, timers and the like, and no thread that has to finish.

    >>> async def greet(call: ProviderCall) -> str:
    ...     return f"Hello, {call.input}"
    >>> transport = FunctionTransport(greet, paid=False, idempotent="nature")
    >>> call = ProviderCall(
    ...     service="greeting", input="Ada", request_id="r1", idempotency_key="k1", max_cost=0, timeout=1.0
    ... )
    >>> asyncio.run(transport.call(call))
    ProviderReply(output='Hello, Ada', cost=None, wire_calls=1, weights={}, limits=())
    """

    def __init__(
        self,
        function: Callable[[ProviderCall], Awaitable[Any]],
        *,
        paid: bool,
        idempotent: Idempotent,
        provider: str | None = None,
        check: Callable[[float], Awaitable[None]] | None = None,
        ends_when_cancelled: bool = False,
    ) -> None:
        check_declared(paid, idempotent)
        check_function(function)
        self.ends_when_cancelled = ends_when_cancelled
        self.paid = paid
        self.idempotent: Idempotent = idempotent
        self.provider = provider
        self._name = str(getattr(function, "__qualname__", repr(function)))
        self._function = function
        self._check = check
        self._cuts = Cuts()

    def __repr__(self) -> str:
        return f"FunctionTransport({self.provider or self._name}, paid={self.paid}, idempotent={self.idempotent!r})"

    async def call(self, call: ProviderCall) -> ProviderReply:
        """Await the function for at most `call.timeout` seconds; raises members of `CallFailed` only."""
        loop = asyncio.get_running_loop()
        cut = self._cuts.at(loop.time() + call.timeout, loop)
        is_ended = False
        try:
            answer = await awaitable(self._function(call))
        except asyncio.CancelledError:
            is_ended = True
            if cut is None or not cut.end():
                raise
            raise self._failure(CallTimedOut(call.timeout), call) from None
        except CallFailed:
            raise
        except Exception as error:
            raise self._failure(error, call) from error
        finally:
            if cut is not None and not is_ended:
                cut.end()
        return answer if isinstance(answer, ProviderReply) else ProviderReply(output=answer)

    def _failure(self, error: Exception, call: ProviderCall) -> CallFailed:
        name = self.provider or call.provider or self._name
        return classify(error, provider=name, sent=True, paid=self.paid, idempotent=self.idempotent != "no")

    async def check(self, *, timeout: float) -> None:  # noqa: ASYNC109 - how long is the transport's own affair.
        """Await the given check for at most `timeout` seconds; without one, return."""
        if self._check is None:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._check(timeout)
        except CallFailed:
            raise
        except Exception as error:
            raise classify(error, provider=self.provider or self._name, sent=True) from error

    async def aclose(self) -> None:
        """Leave the function alone: whoever made it closes what it uses."""
        self._cuts.close()
