"""Interceptors, which see and may replace every message before its handler and every answer after it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from runtime.envelope import Stashed
from runtime.handlers import Handler, Handlers, direct_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runtime.actor import Actor
    from runtime.ref import ActorRef


class Interceptor:
    """Override the methods that you need. With several interceptors, the first of the list is the outermost.

    All methods are called where the handler runs, between messages of the same actor. An exception of theirs counts
    as one of the handler. The hooks of an actor are not intercepted.
    """

    def received(self, ref: ActorRef[Any], message: Any) -> Any:
        """Return the message for the handler: this one, or another that the same handler takes."""
        return message

    def handled(self, ref: ActorRef[Any], message: Any, answer: Any) -> Any:
        """Return the answer for the asker: this one, or another. The answer to a message without an asker stays None.

        An answer that is given later, by a future, is passed here too, but cannot be replaced.
        """
        return answer

    def failed(self, ref: ActorRef[Any], message: Any, error: BaseException) -> None:
        """Observe what the handler raised: a refusal, a crash, or its cancellation."""


class InterceptedHandlers:
    """The handlers of actor classes, wrapped in the interceptors of a system; once for each class."""

    def __init__(self, interceptors: Sequence[Interceptor]) -> None:
        self.interceptors = tuple(interceptors)
        self._wrapped: dict[type, tuple[dict[type, Callable[[Any, Any], Any]], Handlers]] = {}

    def intercept(self, actor: Actor[Any]) -> None:
        """Let every message that this actor handles pass the interceptors."""
        cls = type(actor)
        if cls not in self._wrapped:
            handlers = Handlers()
            for message_type, handler in cls.handlers.items():
                if handler is not None and handler.message is message_type:
                    # A subclass that was looked up is looked up again: a handler has one wrapper, and one lane.
                    handlers[message_type] = self._wrap(handler)
            self._wrapped[cls] = direct_of(handlers), handlers
        # The attributes of the instance shadow those of its class.
        actor.direct, actor.handlers = self._wrapped[cls]  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]

    def _wrap(self, handler: Handler) -> Handler:
        function = self._around_async(handler) if handler.is_async else self._around_sync(handler)
        return Handler(handler.message, function, handler.is_async, handler.concurrent, handler.inline)

    def _around_sync(self, handler: Handler) -> Callable[[Any, Any], Any]:
        def intercepted(actor: Actor[Any], message: Any) -> Any:
            ref = actor.context.ref
            try:
                message = self._received(ref, message)
                answer = handler.function(actor, message)
                if isinstance(answer, asyncio.Future):
                    self._watch(ref, message, answer)  # pyright: ignore[reportUnknownArgumentType]
                    return answer  # pyright: ignore[reportUnknownVariableType]
                return self._handled(ref, message, answer)
            except BaseException as error:
                self._failed(ref, message, error)
                raise

        return intercepted

    def _around_async(self, handler: Handler) -> Callable[[Any, Any], Any]:
        async def intercepted(actor: Actor[Any], message: Any) -> Any:
            ref = actor.context.ref
            try:
                message = self._received(ref, message)
                return self._handled(ref, message, await handler.function(actor, message))
            except BaseException as error:
                self._failed(ref, message, error)
                raise

        return intercepted

    def _received(self, ref: ActorRef[Any], message: Any) -> Any:
        for one in self.interceptors:
            message = one.received(ref, message)
        return message

    def _handled(self, ref: ActorRef[Any], message: Any, answer: Any) -> Any:
        if isinstance(answer, Stashed):
            return answer  # It is not handled yet.
        for one in reversed(self.interceptors):
            answer = one.handled(ref, message, answer)
        return answer

    def _failed(self, ref: ActorRef[Any], message: Any, error: BaseException) -> None:
        for one in reversed(self.interceptors):
            one.failed(ref, message, error)

    def _watch(self, ref: ActorRef[Any], message: Any, future: asyncio.Future[Any]) -> None:
        def show(done: asyncio.Future[Any]) -> None:
            error = asyncio.CancelledError() if done.cancelled() else done.exception()
            if error is None:
                self._handled(ref, message, done.result())
            else:
                self._failed(ref, message, error)

        future.add_done_callback(show)
