"""A probe: a ref to pass to the code under test, which records the messages sent to it for the test to expect."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from runtime.actor import Actor
from runtime.handlers import handles
from runtime.messages import Message, Request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.actor import Spawner
    from runtime.ref import ActorRef

M = TypeVar("M", bound=Message)


class Recorder(Actor[Any]):
    """The actor behind a probe."""

    def __init__(self, probe: TestProbe) -> None:
        self.probe = probe

    @handles(Message)
    def record(self, message: Message) -> Any:
        """Record a message; answer a request as the probe says."""
        return self.probe.record(message)


class TestProbe:
    """A ref for the code under test, and the messages that were sent to it.

    `answers` maps each type of request to its answer, or to an exception to raise; other requests are left unanswered
    until their deadline. `expect` takes messages in the order of their arrival; `received` keeps them all.
    """

    __test__ = False  # pytest would collect it as a test, because of its name.

    def __init__(
        self, spawner: Spawner, *, name: str | None = None, answers: Mapping[type[Request[Any]], Any] | None = None
    ) -> None:
        self.received: list[Message] = []
        self.answers = dict(answers or {})
        self._unseen: asyncio.Queue[Message] = asyncio.Queue()
        self._recorder = Recorder(self)
        self.ref: ActorRef[Any] = spawner.spawn(self._make, name=name)

    def record(self, message: Message) -> Any:
        """Record a message, and return or raise the answer for its type; called by the actor behind the probe."""
        self.received.append(message)
        self._unseen.put_nowait(message)
        kind = type(message)
        if not issubclass(kind, Request):
            return None
        if kind not in self.answers:
            return asyncio.get_running_loop().create_future()
        answer = self.answers[kind]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def watch(self, ref: ActorRef[Any]) -> None:
        """Send `Terminated` to the probe when `ref` ends, or now if it has ended."""
        self._recorder.context.watch(ref)

    async def expect(self, message_type: type[M], *, within: float = 1.0) -> M:
        """Return the next message. Raises AssertionError if none comes `within` seconds, or one of another type."""
        try:
            async with asyncio.timeout(within):
                message = await self._unseen.get()
        except TimeoutError:
            raise AssertionError(f"{self.ref.path} got no {message_type.__name__} within {within:g} s") from None
        if not isinstance(message, message_type):
            raise AssertionError(f"{self.ref.path} expected {message_type.__name__}, got {message!r}")  # noqa: TRY004
        return message

    async def expect_nothing(self, *, within: float = 0.1) -> None:
        """Return after `within` seconds without a message.

        Raises AssertionError if one comes, or if one that came before has not been expected.
        """
        try:
            async with asyncio.timeout(within):
                message = await self._unseen.get()
        except TimeoutError:
            return
        raise AssertionError(f"{self.ref.path} expected nothing, got {message!r}")

    def _make(self) -> Recorder:
        # An answer that is an error may crash the actor; its next instance records for the same probe.
        if self._recorder.bound_to is not None:
            self._recorder = Recorder(self)
        return self._recorder

    def __repr__(self) -> str:
        return f"<TestProbe {self.ref.path}, {len(self.received)} received, {self._unseen.qsize()} unseen>"
