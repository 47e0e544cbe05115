"""The function transport: reaches a provider through an async function of one call."""

from __future__ import annotations

import asyncio
import inspect
import sys
from typing import TYPE_CHECKING, Any

from actors.errors.exceptions import classify
from actors.errors.families import CallFailed
from actors.errors.words import with_words
from actors.masking import Secrets, shown_callable
from actors.policies.timeout import CallTimedOut, DeadlineTimers
from actors.transports.own_reading import Classify, check_classify, own_reading
from actors.transports.transport import Idempotent, ProviderCall, ProviderReply, UnreadableCost, check_declared

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection


def check_function(function: object) -> None:
    """Raise `TypeError` if `function` cannot be called with one argument, as far as its signature tells."""
    if not callable(function):
        raise TypeError(f"a FunctionTransport needs an async function of one ProviderCall, got {function!r}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # Some callables have no signature.
    try:
        signature.bind(None)
    except TypeError as error:
        name = shown_callable(function)
        raise TypeError(f"a FunctionTransport calls its function with one ProviderCall, but {name}: {error}") from None


def awaitable(outcome: Any) -> Awaitable[Any]:
    """Return what the function of a transport returned; raise `TypeError` if it cannot be awaited."""
    if not inspect.isawaitable(outcome):
        raise TypeError(f"the function returned {outcome!r:.100} instead of an awaitable; make it an async function")
    return outcome


class FunctionTransport:
    """Reaches a provider through an async function, such as a call of an SDK.

    `function(call)` returns a `ProviderReply`, or any other value, which becomes the output of a reply without a
    stated cost. Errors of SDKs are read as the answers that they carry; others are those of a call that was sent,
    unless they mean that no byte left. If the function knows better, it may raise members of `CallFailed` itself, which
    pass through.

    An SDK that retries on its own, or follows redirects, hides calls: state `wire_calls` in the reply and in the error
    if the SDK tells them, or switch that off and say `client_retries=False`. With True, its last error proves nothing
    of the tries before it; by default (None) the error is asked how many they were.

    `classify(error, call)` may return the `CallFailed` that an error means here, or None to leave that to us. It is
    asked about each failure, also about a `CallFailed` of the function, and takes the place of the market's `classify`.

    Errors name the provider as it is listed, or as `provider`, and end with what it said. `secrets` are masked in them,
    such as the key of an SDK, which providers may quote.

    `check(timeout)` checks the health of the provider; without it the provider counts as healthy. Set
    `ends_when_cancelled` if the function ends soon after it is cancelled: if it awaits sockets, timers and the like,
    and no thread that has to finish.

    >>> async def greet(call: ProviderCall) -> str:
    ...     return f"Hello, {call.input}"
    >>> transport = FunctionTransport(greet, paid=False, idempotent="repeatable")
    >>> call = ProviderCall(
    ...     service="greeting", input="Ada", request_id="r1", idempotency_key="k1", max_cost=0, timeout=1.0
    ... )
    >>> asyncio.run(transport.call(call))
    ProviderReply(output='Hello, Ada', cost=None, wire_calls=1, weights={}, limits=(), unread_cost=None)
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
        secrets: Collection[str] = (),
        client_retries: bool | None = None,
        classify: Classify | None = None,
    ) -> None:
        check_declared(paid, idempotent)
        check_function(function)
        check_classify(classify)
        self.ends_when_cancelled = ends_when_cancelled
        self.paid = paid
        self.idempotent: Idempotent = idempotent
        self.provider = provider
        self._name = shown_callable(function)
        self._function = function
        self._check = check
        self._secrets = Secrets(certain=secrets)
        self._client_retries = client_retries
        self.classify = classify
        self._timers = DeadlineTimers()

    def __repr__(self) -> str:
        return f"FunctionTransport({self.provider or self._name}, paid={self.paid}, idempotent={self.idempotent!r})"

    async def call(self, call: ProviderCall) -> ProviderReply:
        """Await the function for at most `call.timeout` seconds; raises members of `CallFailed` only."""
        loop = asyncio.get_running_loop()
        timer = self._timers.at(loop.time() + call.timeout, loop)
        is_ended = False
        handled = sys.exception()
        try:
            answer = await awaitable(self._function(call))
        except asyncio.CancelledError:
            is_ended = True
            if timer is None or not timer.end():
                raise
            raise self._failure(CallTimedOut(call.timeout), call, handled) from None
        except UnreadableCost as mistake:
            answer = mistake.reply  # It was paid for, and is not lost because of its cost.
        except CallFailed as failure:
            if (own := self._failure(failure, call)) is not failure:
                raise own from failure
            raise
        except Exception as error:  # noqa: BLE001 - raised again, by its family.
            raise self._failure(error, call, handled) from self._secrets.cause(error)
        finally:
            if timer is not None and not is_ended:
                timer.end()
        return answer if isinstance(answer, ProviderReply) else ProviderReply(output=answer)

    def _failure(self, error: Exception, call: ProviderCall, handled: BaseException | None = None) -> CallFailed:
        name = self.provider or call.provider or self._name
        if self.classify is not None and (own := own_reading(self.classify, error, call, provider=name)) is not None:
            return own
        failure = classify(
            error,
            provider=name,
            sent=True,
            paid=self.paid,
            idempotent=self.idempotent != "no",
            client_retries=self._client_retries,
            handled=handled,
        )
        return failure if failure is error else self._told(failure, error)

    def _told(self, failure: CallFailed, error: Exception) -> CallFailed:
        """Return a failure with what the provider said, which is in an error unless that is the client's own."""
        own = "" if issubclass(type(error), OSError | EOFError) else error
        return with_words(failure, failure.said or own, secrets=self._secrets)

    async def check(self, *, timeout: float) -> None:  # noqa: ASYNC109 - the interface of `Transport`.
        """Await the given check for at most `timeout` seconds; without one, return at once."""
        if self._check is None:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._check(timeout)
        except CallFailed:
            raise
        except Exception as error:  # noqa: BLE001 - as above.
            failure = self._told(classify(error, provider=self.provider or self._name, sent=True), error)
            raise failure from self._secrets.cause(error)

    async def aclose(self) -> None:
        """Drop the timer of the timeouts; what the function uses is closed by its owner."""
        self._timers.close()
