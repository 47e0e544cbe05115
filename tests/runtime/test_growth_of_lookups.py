"""What an end or a cancellation costs does not grow with what it does not concern."""

from __future__ import annotations

from runtime import Actor, ActorSystem, Event, Key, Message, handles
from runtime.event_stream import EventStream


class Ping(Message):
    pass


class Member(Actor[Ping]):
    @handles(Ping)
    def ping(self, message: Ping) -> None: ...


class First(Event, frozen=True):
    pass


class Second(Event, frozen=True):
    pass


async def test_the_end_of_an_actor_tries_its_own_keys_alone(monkeypatch):
    async with ActorSystem("keys") as system:
        refs = [system.spawn(Member) for _ in range(20)]
        for number, ref in enumerate(refs):
            system.registry.register(Key(f"own-{number}"), ref)
            system.registry.register(Key("all"), ref)
        tried = []
        unregister = system.registry.unregister
        monkeypatch.setattr(
            system.registry, "unregister", lambda key, ref: (tried.append(key.name), unregister(key, ref))
        )
        refs[3].stop()
        await refs[3].terminated()
        assert tried == ["own-3", "all"]
        assert system.registry.find(Key("own-3")) == ()
        assert system.registry.find_one(Key("all")) is refs[0]
        assert system.registry.find_one(Key("none")) is None


def test_a_change_forgets_the_answers_that_it_concerns_alone():
    events = EventStream()
    heard: list[Event] = []
    with events.subscribe(First, heard.append):
        events.publish(First())
        events.publish(Second())
        remembered = events._by_type[First]
        second = events.subscribe(Second, heard.append)
        assert events._by_type[First] is remembered
        events.publish(Second())
        second.cancel()
        second.cancel()
        assert events._by_type[First] is remembered
        events.publish(Second())
        with events.subscribe(Event, heard.append):
            events.publish(First())
    assert heard == [First(), Second(), First(), First()]
