"""The actors that serve a supervisor: one that is ended from outside is replaced, and what it was told goes on.

A stop or a kill from outside is final for an actor (`Restart`), and so a supervisor starts another one in its place.
Too many within `RestartIntensity`, and the supervisor fails instead, as it does if a child crashes that often.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from runtime import ActorCrashed, ActorStopped, DeadLetter, DeadReason, Mailbox, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime import Actor, ActorRef, Context, RestartIntensity, Subscription

R = TypeVar("R")

MAILBOX = Mailbox()

SHORTEST_WAIT = 0.001
"""Seconds that a question has at least that is asked again."""
MAX_FORMER = 64
"""The former actors of one service whose late mail is still passed on."""


class Service:
    """An actor that serves a supervisor, over all that have taken its place: it is told and asked as by a ref."""

    def __init__(self, context: Context, spawn: Callable[[], ActorRef[Any]]) -> None:
        self.ref = spawn()
        self._context = context
        self._spawn = spawn
        self._former: deque[ActorRef[Any]] = deque(maxlen=MAX_FORMER)
        self._lost: list[Any] = []
        """What the last one was told and has not handled, until there is another."""
        self._replaced: asyncio.Future[None] | None = None
        context.watch(self.ref)

    def tell(self, message: Any) -> None:
        """Tell it, or the next one; see `ActorRef.tell`."""
        self.ref.tell(message)

    async def send(self, message: Any) -> None:
        """Tell it, or the next one, as soon as there is room; see `ActorRef.send`."""
        while True:
            ref = self.ref
            try:
                return await ref.send(message)
            except ActorStopped:
                await self._another_than(ref)

    async def ask(self, request: Request[R], *, timeout: float) -> R:  # noqa: ASYNC109 - see `ActorRef.ask`.
        """Ask it, and the next one if it has ended without an answer; see `ActorRef.ask`.

        What a service is asked may be asked again: it grants all of it in one turn, or nothing.
        """
        until = self._context.now() + timeout
        left, cut_short = timeout, None
        while True:
            ref = self.ref
            try:
                return await ref.ask(request, timeout=left)
            except ActorStopped as fault:
                try:
                    async with asyncio.timeout(until - self._context.now()):
                        await self._another_than(ref)
                except TimeoutError:
                    raise fault from None
            except ActorCrashed as fault:
                if fault.__cause__ is not None or ref is cut_short:
                    raise
                cut_short = ref  # Its answer was still to come when it ended, or was restarted.
            left = max(until - self._context.now(), SHORTEST_WAIT)

    async def _another_than(self, ref: ActorRef[Any]) -> None:
        """Wait until another one has taken the place of `ref`."""
        while self.ref is ref:
            if self._replaced is None:
                self._replaced = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._replaced)

    def replace(self) -> None:
        """Start another one, and tell it what the last one has not handled."""
        self._former.append(self.ref)
        self.ref = self._spawn()
        self._context.watch(self.ref)
        lost, self._lost = self._lost, []
        for message in lost:
            self.ref.tell(message)
        if self._replaced is not None:
            self._replaced.set_result(None)
            self._replaced = None

    def take_back(self, letter: DeadLetter) -> None:
        """Keep what the last one was told for the next one; what a former one was told goes to this one."""
        if letter.recipient is self.ref:
            self._lost.append(letter.message)
        elif letter.recipient in self._former:
            self.ref.tell(letter.message)

    def __repr__(self) -> str:
        return f"<Service {self.ref!r}>"


class Services:
    """The services of one supervisor. `intensity` bounds how often they are replaced, all together."""

    def __init__(self, context: Context, intensity: RestartIntensity) -> None:
        self._context = context
        self._intensity = intensity
        self._services: list[Service] = []
        self._replacements: deque[float] = deque()
        self._subscription: Subscription | None = None

    def start(self, factory: Callable[[], Actor[Any]], *, name: str, mailbox: Mailbox = MAILBOX) -> Service:
        """Start an actor, and others in its place."""
        context = self._context
        service = Service(context, lambda: context.spawn(factory, name=name, mailbox=mailbox))
        self._services.append(service)
        return service

    def keep_mail(self) -> None:
        """Keep from now on what a service was told and has not handled, until `close`."""
        self._subscription = self._context.events.subscribe(DeadLetter, self._take_back)

    def ended(self, ref: ActorRef[Any]) -> None:
        """Replace the one that has ended; raises RuntimeError if that comes too often."""
        service = next((one for one in self._services if one.ref is ref), None)
        if service is None:
            return  # It belonged to an instance before a restart.
        if not self._intensity.tolerates(self._replacements, now=self._context.now()):
            raise RuntimeError(
                f"{ref.path} was ended from outside again and again, more than {self._intensity.max_restarts} times in "
                f"{self._intensity.within:g} s; find what stops or kills it"
            )
        with suppress(ActorStopped):  # The supervisor is ending itself.
            service.replace()

    def _take_back(self, letter: DeadLetter) -> None:
        """Keep what was told; what was asked is asked again."""
        if letter.reason is DeadReason.STOPPED and not isinstance(letter.message, Request):
            for service in self._services:
                service.take_back(letter)

    def close(self) -> None:
        """Keep no mail any more."""
        if self._subscription is not None:
            self._subscription.cancel()

    def __repr__(self) -> str:
        return f"<Services {self._services!r}>"
