"""What the engine does for many: the restart of a group, the ends of registered actors, subscriptions that end."""

from __future__ import annotations

import asyncio
from collections import Counter
from time import perf_counter

from runtime import (
    IMMEDIATELY,
    Actor,
    ActorSystem,
    DeadLetter,
    Event,
    Key,
    Message,
    RestartIntensity,
    Strategy,
    Supervision,
    handles,
)


class Crash(Message, frozen=True):
    """Makes an actor crash."""


class Member(Actor[Crash]):
    """An actor of a group; the last of `size` starts sets `all_started`."""

    def __init__(self, starts: Counter[str], size: int, all_started: asyncio.Event) -> None:
        self._starts, self._size, self._all_started = starts, size, all_started

    def started(self) -> None:
        self._starts["all"] += 1
        if self._starts["all"] % self._size == 0:
            self._all_started.set()

    @handles(Crash)
    def crash(self, _message: Crash) -> None:
        raise RuntimeError("on purpose")


async def restart_of_group(size: int) -> float:
    """Return the seconds until all of a group have restarted after one of them crashed."""
    starts, all_started = Counter[str](), asyncio.Event()
    together = Supervision(
        strategy=Strategy.ONE_FOR_ALL, intensity=RestartIntensity(max_restarts=10_000_000), backoff=IMMEDIATELY
    )
    async with ActorSystem("growth", supervision=together, log=False) as system:
        members = [system.spawn(lambda: Member(starts, size, all_started)) for _ in range(size)]
        await all_started.wait()
        all_started.clear()
        begin = perf_counter()
        members[0].tell(Crash())
        await all_started.wait()
        return perf_counter() - begin


class Idle(Actor[Crash]):
    """An actor that does nothing."""

    @handles(Crash)
    def ignore(self, _message: Crash) -> None:
        pass


async def ends_of_registered(size: int) -> float:
    """Return the seconds in which a system with `size` actors, each under a key of its own, is left."""
    async with ActorSystem("growth", log=False) as system:
        for number in range(size):
            system.registry.register(Key[Crash](f"key-{number}"), system.spawn(Idle))
        await asyncio.sleep(0)
        begin = perf_counter()
    return perf_counter() - begin


async def end_beside_keys(size: int, count: int = 200) -> float:
    """Return the seconds in which `count` actors that are under no key end, while `size` keys exist."""
    async with ActorSystem("growth", log=False) as system:
        for number in range(size):
            system.registry.register(Key[Crash](f"key-{number}"), system.spawn(Idle))
        others = [system.spawn(Idle) for _ in range(count)]
        await asyncio.sleep(0)
        begin = perf_counter()
        for other in others:
            other.stop()
        for other in others:
            await other.terminated()
        return perf_counter() - begin


async def finds_of_one(size: int, count: int = 20_000) -> float:
    """Return the seconds of `count` look-ups of one actor under a key that `size` actors are under."""
    async with ActorSystem("growth", log=False) as system:
        key = Key[Crash]("translators")
        for _ in range(size):
            system.registry.register(key, system.spawn(Idle))
        begin = perf_counter()
        for _ in range(count):
            assert system.registry.find_one(key) is not None
        return perf_counter() - begin


async def ends_of_subscriptions(size: int) -> float:
    """Return the seconds in which `size` subscriptions are cancelled, with an event published between each two."""
    async with ActorSystem("growth", log=False) as system:
        subscriptions = [system.events.subscribe(DeadLetter, ignore) for _ in range(size)]
        begin = perf_counter()
        for subscription in subscriptions:
            subscription.cancel()
            system.events.wants(Event)
        return perf_counter() - begin


def ignore(_event: Event) -> None:
    """Do nothing about an event."""
