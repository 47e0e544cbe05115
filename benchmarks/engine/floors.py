"""The floors: what a careful hand writes with a task, a deque and a future, and no supervision, bound or deadline."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any


class FloorActor:
    """A resident task that handles what comes into its deque, and sleeps on a future when there is nothing."""

    def __init__(self) -> None:
        self.queue: deque[Any] = deque()
        self.waiter: asyncio.Future[None] | None = None
        self.loop = asyncio.get_running_loop()
        self.task = self.loop.create_task(self.run())

    def tell(self, message: Any) -> None:
        self.queue.append(message)
        if self.waiter is not None:
            self.waiter.set_result(None)
            self.waiter = None

    async def ask(self, payload: Any) -> Any:
        future = self.loop.create_future()
        self.tell((payload, future))
        return await future

    def started(self) -> None:
        self.ready = True

    async def run(self) -> None:
        self.started()
        while True:
            while self.queue:
                self.handle(self.queue.popleft())
            self.waiter = self.loop.create_future()
            await self.waiter

    def handle(self, message: Any) -> None:
        raise NotImplementedError

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class Counter(FloorActor):
    """Counts tells, and answers asks with the count."""

    count = 0

    def handle(self, message: Any) -> None:
        if type(message) is tuple:
            message[1].set_result(self.count)
        else:
            self.count += 1


class BoundedCounter(Counter):
    """Looks at the length of its queue before it takes a message."""

    def tell(self, message: Any) -> None:
        if len(self.queue) >= 1_000_000:
            raise OverflowError
        super().tell(message)


class Forwarder(FloorActor):
    """Sends a number on to the next, less one; at zero it says that it is done."""

    next: Forwarder
    done: asyncio.Event

    def handle(self, message: int) -> None:
        if message:
            self.next.tell(message - 1)
        else:
            self.done.set()


class Asker(FloorActor):
    """Asks another actor many times when it is told to."""

    target: Counter
    done: asyncio.Event

    async def run(self) -> None:
        while True:
            while self.queue:
                for _ in range(self.queue.popleft()):
                    await self.target.ask(None)
                self.done.set()
            self.waiter = self.loop.create_future()
            await self.waiter
