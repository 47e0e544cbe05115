"""What every message of a system passes on its way into a handler, and its outcome on the way out."""

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
    """Override what you need. With several, the first of the list is the outermost.

    All three are called where the handler runs, between messages of the same actor; what they raise counts as raised
    by the handler. Hooks of an actor are not intercepted.
    """

    def received(self, ref: ActorRef[Any], message: Any) -> Any:
        """Return what the handler gets: the message, or another that the same handler takes."""
        return message

    def handled(self, ref: ActorRef[Any], message: Any, answer: Any) -> Any:
        """Return what the asker gets; a message that was told has the answer None, and keeps it.

        Of an answer that is given later, by a future, the result is shown here, but cannot be replaced.
        """
        return answer

    def failed(self, ref: ActorRef[Any], message: Any, error: BaseException) -> None:
        """Hear of what the handler raised: a refusal, a crash, or its cancellation."""


class Tables:
    """The handlers of actor classes, wrapped once for each class."""

    def __init__(self, interceptors: Sequence[Interceptor]) -> None:
        self.interceptors = tuple(interceptors)
        self._wrapped: dict[type, tuple[dict[type, Callable[[Any, Any], Any]], Handlers]] = {}

    def intercept(self, actor: Actor[Any]) -> None:
        """Let everything that this actor handles pass the interceptors."""
        cls = type(actor)
        if cls not in self._wrapped:
            handlers = Handlers()
            for message_type, handler in cls.handlers.items():
                if handler is not None and handler.message is message_type:
                    # What was looked up for a subclass is looked up again: a handler has one wrapper, and one lane.
                    handlers[message_type] = self._wrap(handler)
            self._wrapped[cls] = direct_of(handlers), handlers
        # The instance's own tables shadow those of its class.
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
