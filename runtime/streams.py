"""Streams into and out of actors, with back-pressure, that compose with the operators of aiostream."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from aiostream import stream, streamcontext

from runtime.actor import Actor
from runtime.events import DeadLetter, DeadReason
from runtime.handlers import handles
from runtime.mailbox import Mailbox
from runtime.messages import Message
from runtime.supervision import Restart

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable

    from aiostream.core import Stream
    from anyio.streams.memory import MemoryObjectSendStream

    from runtime.actor import Spawner
    from runtime.messages import Asks, R
    from runtime.ref import ActorRef

M = TypeVar("M")
T = TypeVar("T")


async def feed(ref: ActorRef[M], source: AsyncIterable[M], *, timeout: float | None = None) -> int:  # noqa: ASYNC109 - see `send`.
    """Send each message of `source` to an actor, waiting for room each time; return how many were sent.

    At most one message is read ahead of the mailbox. `timeout` bounds each wait, in seconds. Raises as
    `ActorRef.send` does; messages sent before stay sent. The source is closed in every case.
    """
    count = 0
    async with streamcontext(source) as messages:
        async for message in messages:
            await ref.send(message, timeout=timeout)
            count += 1
    return count


def through(
    ref: ActorRef[M],
    source: AsyncIterable[T],
    request: Callable[[T], Asks[M, R]],
    *,
    timeout: float,
    max_concurrency: int = 1,
    ordered: bool = True,
) -> Stream[R]:
    """Ask an actor about each item of `source`; the answers are an aiostream stream.

    At most `max_concurrency` requests are under way or have answers that are not read; the source is read no further.
    Answers come in the order of the items, or with `ordered=False` as they arrive. Each request has `timeout`
    seconds, and the first error ends the stream. Consume it in `async with through(...).stream() as answers`, which
    closes the source and cancels what is under way.
    """

    async def ask(item: T, *_: T) -> R:
        return await ref.ask(request(item), timeout=timeout)

    return stream.map(source, ask, ordered=ordered, task_limit=max_concurrency)


class Outlet(Actor[Any]):
    """Passes on every message sent to it, one at a time, when the reader is ready for it."""

    def __init__(self, out: MemoryObjectSendStream[Any]) -> None:
        self.out = out

    @handles(Message)
    async def pass_on(self, message: Message) -> None:
        """Wait until the reader takes the message."""
        try:
            await self.out.send(message)
        except asyncio.CancelledError:
            # No reader will take it any more; it must not be lost silently.
            self.context.events.publish(DeadLetter(self.context.ref, message, DeadReason.STOPPED))
            raise

    def stopped(self) -> None:
        self.out.close()


@asynccontextmanager
async def outlet(
    spawner: Spawner, *, name: str | None = None, capacity: int = 100
) -> AsyncGenerator[tuple[ActorRef[Any], AsyncIterator[Any]]]:
    """Yield a ref and an iterator: messages sent to the ref come out of the iterator, in order.

    `capacity` messages wait in the mailbox, and one more in its handler; then `send` waits, and `tell` raises
    `MailboxFull`. Stopping the actor ends the iteration. Leaving the block kills the actor; unread messages become
    dead letters.
    """
    out, messages = anyio.create_memory_object_stream[Any](0)
    with out, messages:
        # It is never restarted, because the stream ends with it.
        ref: ActorRef[Any] = spawner.spawn(
            lambda: Outlet(out), name=name, mailbox=Mailbox(capacity=capacity), restart=Restart.TEMPORARY
        )
        try:
            yield ref, messages
        finally:
            ref.kill()
            await ref.terminated()
