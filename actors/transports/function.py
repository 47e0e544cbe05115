"""The function transport: reaches a provider through a function of one call, async or in a thread."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakValueDictionary

from msgspec.structs import replace

from actors.errors.error_tree import attribute, text_of
from actors.errors.exceptions import classify, is_decode_error
from actors.errors.families import CallFailed, Permanent, Unclassified
from actors.errors.words import with_words
from actors.masking import Secrets, shown_callable
from actors.policies.timeout import CallTimedOut, DeadlineTimer, DeadlineTimers
from actors.transports.own_reading import Classify, check_classify, own_reading
from actors.transports.threaded_calls import ThreadedCalls
from actors.transports.transport import Idempotent, ProviderCall, ProviderReply, UnreadableCost, check_declared
from actors.transports.wire_calls import WireCalls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from actors.transports.reconciliation import Finding

CLOCK_ERROR = 1e-6
"""Seconds by which a timer may be early, by rounding."""


def check_function(function: object) -> None:
    """Raise `TypeError` if `function` cannot be called with one argument, as far as its signature tells."""
    if not callable(function):
        raise TypeError(f"a FunctionTransport needs a function of one ProviderCall, got {function!r}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # Some callables have no signature.
    try:
        signature.bind(None)
    except TypeError as error:
        name = shown_callable(function)
        raise TypeError(f"a FunctionTransport calls its function with one ProviderCall, but {name}: {error}") from None


def is_async(function: object) -> bool:
    """Tell whether a function, or the `__call__` of an object, is async; what a lambda returns is seen too late."""
    while isinstance(function, functools.partial):
        function = cast("functools.partial[object]", function).func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - its kind is asked for, not whether there is one.


def _is_cancellation(group: BaseExceptionGroup[BaseException]) -> bool:
    """Tell whether a group holds a cancellation, beside errors, and nothing else that ends a program."""
    return group.split((Exception, asyncio.CancelledError))[1] is None


def _first_limit(call: ProviderCall) -> float:
    """Return the seconds that a call has: all of its own, or for a stream without a piece yet those until the first."""
    stream, whole = call.stream, call.timeout + call.notes.more
    return whole if stream is None or stream.first_at is not None else min(whole, stream.first)


def is_of_input(error: Exception, given: Any) -> bool:
    """Tell whether what could not be decoded is the input of the call, and no answer.

    >>> try:
    ...     bytes([255]).decode()
    ... except ValueError as error:
    ...     is_of_input(error, {"page": bytes([255])}), is_of_input(error, "another text")
    (True, False)
    """
    if not is_decode_error(type(error)):
        return False
    undecoded = attribute(error, "object" if issubclass(type(error), UnicodeDecodeError) else "doc")
    fields = list(given.values()) if isinstance(given, dict) else [given]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return isinstance(undecoded, str | bytes) and undecoded in fields


class _GrowingTime:
    """The time of one call: to the first piece of a stream, and then to its end, which may come to be later."""

    __slots__ = ("_call", "_ends_at", "_timer")

    def __init__(self, timer: DeadlineTimer, call: ProviderCall, ends_at: float) -> None:
        self._timer, self._call, self._ends_at = timer, call, ends_at
        if call.stream is not None:
            call.stream.on_first = self._first_came
        if call.notes.longest is not None:
            call.notes.on_more_time = self._grow

    def _first_came(self) -> None:
        self._timer.postpone(self._ends_at)

    def _grow(self, seconds: float, to_first: float) -> None:
        self._ends_at += seconds
        waits = self._call.stream is not None and self._call.stream.first_at is None
        self._timer.postpone(self._timer.deadline + to_first if waits else self._ends_at)


class FunctionTransport:
    """Reaches a provider through a function, such as a call of an SDK.

    An async function runs in the event loop. A sync one runs in a thread of its provider's, with the caller's context
    variables; it has as many threads as the listing's `max_concurrency`, or 10 without a listing. A thread cannot be
    cut: beyond `call.timeout` the outcome is unknown, the thread keeps its place until the function returns, and until
    then the call is under way for a look-up. If every place is taken, a call is refused (`BulkheadFull`). A
    sync function that returns an awaitable, such as a lambda of an async call, has it awaited in the loop.

    `function(call)` returns a `ProviderReply`, or any other value, which becomes the output of a reply without a stated
    cost. Errors of SDKs are read as the answers that they carry; others are those of a call that was sent, unless they
    mean that no byte left. One that says nothing of the call and comes when its time is over is read as its timeout:
    the function may bound itself by `call.timeout`, and then either may be first. If the function knows better, it may
    raise members of `CallFailed` itself, which pass through.

    An SDK that retries on its own, or follows redirects, hides calls: switch that off and say `client_retries=False`.
    With True, its last error proves nothing of the tries before it; by default (None) the error is asked how many they
    were. `count_wire_calls` counts the requests of a client; of another one, state `wire_calls` in the reply and in the
    error if it tells them.

    `classify(error, call)` may return the `CallFailed` that an error means here, or None to leave that to us. It is
    asked about each failure, also about a `CallFailed` of the function, and takes the place of the market's `classify`.

    Text that is no JSON, and bytes that are no text, count as a broken answer, unless they are the input.

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
    ProviderReply(output='Hello, Ada', cost=None, wire_calls=1, weights={}, limits=(), unread_cost=None, \
usage=None, translated=())
    """

    def __init__(
        self,
        function: Callable[[ProviderCall], Any],
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
        self.has_check = check is not None
        self._secrets = Secrets(certain=secrets)
        self._client_retries = client_retries
        self.classify = classify
        self._timers = DeadlineTimers()
        self.threads: ThreadedCalls | None = None
        """The threads of a sync function that is called without a listing."""
        self._threads_of: WeakValueDictionary[str, ThreadedCalls] = WeakValueDictionary()
        """Those of each listed provider, which keeps them."""
        if not is_async(function):
            self.threads = ThreadedCalls()
            self.look_up = self._look_up  # Only what runs in a thread can be looked up.

    def __repr__(self) -> str:
        return f"FunctionTransport({self.provider or self._name}, paid={self.paid}, idempotent={self.idempotent!r})"

    def use_threads(self, threads: ThreadedCalls, *, provider: str) -> None:
        """Run a sync function in `threads` for the calls to a listed provider; several may share this transport."""
        self._threads_of[provider] = threads

    def _threads_for(self, call: ProviderCall) -> ThreadedCalls | None:
        if self.threads is None or call.provider is None:
            return self.threads
        return self._threads_of.get(call.provider, self.threads)

    async def call(self, call: ProviderCall) -> ProviderReply:
        """Await the function for at most `call.timeout` seconds; raises members of `CallFailed` only.

        Until the first piece of a stream, it has as long as the stream says.
        """
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + call.timeout
        notes = call.notes
        limit = call.timeout + notes.more if call.stream is None else _first_limit(call)
        timer = self._timers.at(loop.time() + limit, loop)
        if timer is not None and (call.stream is not None or notes.longest is not None):
            _GrowingTime(timer, call, ends_at)
        is_ended = False
        handled = sys.exception()
        sent = WireCalls()
        try:
            answer: Any = await self._answer(call, handled, sent)
        except asyncio.CancelledError:
            is_ended = True
            if timer is None or not timer.end():
                raise
            raise self._failure(CallTimedOut(_first_limit(call)), call, handled, sent) from None
        except UnreadableCost as mistake:
            answer = mistake.reply  # It was paid for, and is not lost because of its cost.
        except CallFailed as failure:
            if (own := self._failure(failure, call, sent=sent)) is not failure:
                raise own from failure
            self._mask(failure)
            raise
        except Exception as error:  # noqa: BLE001 - raised again, by its family.
            own = self._failure(error, call, handled, sent)
            if isinstance(own, Unclassified) and loop.time() >= ends_at + notes.more - CLOCK_ERROR:
                # It bounds itself by the same time, and says so in its own words; which of the two is first is chance.
                own = self._failure(CallTimedOut(call.timeout + notes.more), call, handled, sent)
            raise own from self._secrets.cause(error)
        finally:
            notes.on_more_time = None
            sent.end()
            if timer is not None and not is_ended:
                timer.end()
        reply = answer if isinstance(answer, ProviderReply) else ProviderReply(output=answer)
        return reply if sent.count <= max(reply.wire_calls, 1) else replace(reply, wire_calls=sent.count)

    async def _answer(self, call: ProviderCall, handled: BaseException | None, sent: WireCalls) -> Any:
        """Return what the function returns, in the loop or in a thread."""
        threads = None if self.threads is None else self._threads_for(call)
        try:
            if threads is None:
                return await self._function(call)
            answer = await threads.run(
                self._function,
                call,
                provider=self._provider_of(call),
                read=lambda error: self._failure(error, call, handled, sent),
            )
            return await answer if inspect.isawaitable(answer) else answer
        except BaseExceptionGroup as group:
            if isinstance(group, Exception) or not _is_cancellation(group):
                raise
            # As a task group raises it that was cancelled while a member failed.
            raise asyncio.CancelledError from group

    async def _look_up(self, call: ProviderCall, *, timeout: float) -> Finding:  # noqa: ASYNC109 - the interface of `LooksUp`.
        """Return what became of a call that was given up while its thread was at work; raises a `CallFailed`."""
        threads = self._threads_for(call)
        assert threads is not None  # noqa: S101 - otherwise there is no look_up.
        return threads.find(call, provider=self._provider_of(call))

    def _provider_of(self, call: ProviderCall) -> str:
        return self.provider or call.provider or self._name

    def _failure(
        self,
        error: Exception,
        call: ProviderCall,
        handled: BaseException | None = None,
        sent: WireCalls | None = None,
    ) -> CallFailed:
        count = 0 if sent is None else sent.count
        failure = self._read(error, call, handled, has_retried=count > 1)
        if count > max(failure.wire_calls, 1):
            failure.wire_calls = count
        return failure

    def _read(
        self, error: Exception, call: ProviderCall, handled: BaseException | None, *, has_retried: bool
    ) -> CallFailed:
        name = self._provider_of(call)
        if self.classify is not None and (own := own_reading(self.classify, error, call, provider=name)) is not None:
            return own
        if is_of_input(error, call.input):
            message = f"{name!r} cannot read the input of the call: {text_of(error)}"
            return self._told(Permanent(message, provider=name, charged="held" if self.paid else "no"), error)
        failure = classify(
            error,
            provider=name,
            sent=True,
            paid=self.paid,
            idempotent=self.idempotent != "no",
            client_retries=has_retried or self._client_retries,
            handled=handled,
        )
        return failure if failure is error else self._told(failure, error)

    def _mask(self, failure: CallFailed) -> None:
        """Mask the secrets in a failure that the function has raised itself; one that says none stays as it is."""
        said = f"{failure} {failure.said}"
        if failure.args and self._secrets.mask(said) != said:
            with_words(failure, failure.said, secrets=self._secrets)

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
