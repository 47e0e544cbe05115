"""Finding actors by what they are for."""

from __future__ import annotations

import asyncio

from runtime import Actor, ActorSystem, Key, Mailbox, Message, Registered, handles, pool


class Translate(Message):
    pass


class Crash(Message):
    pass


class Translator(Actor[Translate | Crash]):
    @handles(Translate)
    def translate(self, message: Translate) -> None: ...

    @handles(Crash)
    def crash(self, message: Crash) -> None:
        raise OSError("crash")


TRANSLATORS = Key[Translate]("translators")


async def test_actors_are_found_in_the_order_of_their_registration_until_they_end():
    async with ActorSystem() as system:
        first, second = system.spawn(Translator), system.spawn(Translator)
        assert system.registry.find(TRANSLATORS) == ()
        for ref in (second, first, second):
            system.registry.register(TRANSLATORS, ref)
        assert system.registry.find(TRANSLATORS) == (second, first)
        assert repr(system.registry) == "<ActorRegistry 1 keys, 2 actors>"
        second.stop()
        assert system.registry.find(TRANSLATORS) == (first,)
        await second.terminated()
        assert repr(system.registry) == "<ActorRegistry 1 keys, 1 actors>"
        system.registry.unregister(TRANSLATORS, first)
        system.registry.unregister(TRANSLATORS, first)
        assert repr(system.registry) == "<ActorRegistry 0 keys, 0 actors>"


async def test_a_restart_is_no_end_and_a_stopped_actor_is_not_entered():
    async with ActorSystem() as system:
        ref = system.spawn(Translator)
        system.registry.register(TRANSLATORS, ref)
        ref.tell(Crash())
        await asyncio.sleep(60)
        assert system.registry.find(TRANSLATORS) == (ref,)
        ref.stop()
        await ref.terminated()
        system.registry.register(TRANSLATORS, ref)
        assert repr(system.registry) == "<ActorRegistry 0 keys, 0 actors>"


async def test_a_subscriber_hears_who_is_there_now_and_of_each_change():
    heard: list[tuple[str, ...]] = []
    async with ActorSystem("s") as system:

        def hear(event: Registered) -> None:
            heard.append(tuple(ref.path for ref in event.refs))

        subscription = system.registry.subscribe(TRANSLATORS, hear)
        ref = system.spawn(Translator, name="a")
        system.registry.register(TRANSLATORS, ref)
        system.registry.register(Key("others"), ref)
        ref.stop()
        await ref.terminated()
        subscription.cancel()
        system.registry.register(TRANSLATORS, system.spawn(Translator, name="b"))
    assert heard == [(), ("s/a",), ()]


async def test_an_actor_that_subscribed_is_told_and_forgotten_when_it_ends(recorded):
    heard: list[int] = []

    class Listener(Actor[Registered]):
        def started(self) -> None:
            self.context.registry.subscribe(TRANSLATORS, self.context.ref)

        @handles(Registered)
        def changed(self, message: Registered) -> None:
            heard.append(len(message.refs))

    async with ActorSystem() as system:
        dead = recorded(system)
        listener = system.spawn(Listener)
        await asyncio.sleep(0)
        system.registry.register(TRANSLATORS, system.spawn(Translator))
        await asyncio.sleep(0)
        listener.stop()
        await listener.terminated()
        system.registry.register(TRANSLATORS, system.spawn(Translator))
        await asyncio.sleep(0)
        assert heard == [0, 1]
        assert dead == []


async def test_a_subscriber_without_room_does_not_disturb_who_registers():
    class Slow(Actor):
        @handles(Registered)
        async def changed(self, message: Registered) -> None:
            await asyncio.sleep(3600)

    reports: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report["message"]))
    async with ActorSystem() as system:
        system.registry.subscribe(TRANSLATORS, system.spawn(Slow, mailbox=Mailbox(capacity=1), stop_timeout=0.1))
        for _ in range(3):
            system.registry.register(TRANSLATORS, system.spawn(Translator))
        assert len(system.registry.find(TRANSLATORS)) == 3
        assert reports == ["a subscriber of Registered raised"] * 3


async def test_a_pool_is_registered_and_forgotten_like_an_actor():
    async with ActorSystem() as system:
        workers = pool(system, Translator, size=2)
        system.registry.register(TRANSLATORS, workers)
        assert system.registry.find(TRANSLATORS) == (workers,)
        workers.stop()
        await workers.terminated()
        assert repr(system.registry) == "<ActorRegistry 0 keys, 0 actors>"


async def test_a_subscription_that_was_cancelled_is_not_kept():
    async with ActorSystem() as system:
        ref = system.spawn(Actor)
        for _ in range(100):
            system.registry.subscribe(TRANSLATORS, ref).cancel()
        registry = system.registry
        assert (registry._by_key, registry._by_actor, registry._actors) == ({}, {}, {})
        kept = registry.subscribe(TRANSLATORS, ref)
        registry.subscribe(TRANSLATORS, ref).cancel()
        assert list(registry._by_actor[ref]) == [kept]
        ref.stop()
        await ref.terminated()
        assert (registry._by_key, registry._by_actor, registry._actors) == ({}, {}, {})
