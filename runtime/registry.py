"""Who renders which service in this system: refs by key, for as long as their actors live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic

import msgspec
from typing_extensions import TypeVar

from runtime.events import ActorEnded, Event
from runtime.ref import ActorRef

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.event_stream import EventStream, Subscription

M = TypeVar("M", default=Any)


class Key(msgspec.Struct, Generic[M], frozen=True):
    """The name of a service, typed by the messages its actors take.

    >>> Key[str]("translators") == Key("translators")
    True
    """

    name: str


class Registered(Event, frozen=True):
    """Who renders the service now: told to subscribers of a key at once, and whenever an actor comes or goes."""

    key: Key[Any]
    refs: tuple[ActorRef, ...]


class ActorRegistry:
    """Refs by key, in the order of their registration; an actor that ends is forgotten, a restart is no end.

    Keys of the same name are the same key.
    """

    def __init__(self, events: EventStream) -> None:
        self._events = events
        self._refs: dict[str, dict[ActorRef[Any], None]] = {}
        self._subscribers: dict[ActorRef[Any], list[Subscription]] = {}
        self._ends: Subscription | None = None

    def register(self, key: Key[M], ref: ActorRef[M]) -> None:
        """Enter an actor under a key; entering it twice, or one that is stopped, changes nothing."""
        if ref.recipient.closed or ref in self._refs.get(key.name, {}):
            return
        self._listen()
        self._refs.setdefault(key.name, {})[ref] = None
        self._publish(key)

    def unregister(self, key: Key[M], ref: ActorRef[M]) -> None:
        """Take an actor out of a key; nothing happens where it is not under it."""
        refs = self._refs.get(key.name, {})
        if ref in refs:
            del refs[ref]
            if not refs:
                del self._refs[key.name]
            self._publish(key)

    def find(self, key: Key[M]) -> tuple[ActorRef[M], ...]:
        """Return the actors under a key that take mail, in the order of their registration."""
        return tuple(ref for ref in self._refs.get(key.name, ()) if not ref.recipient.closed)

    def subscribe(self, key: Key[Any], receive: Callable[[Registered], None] | ActorRef[Registered]) -> Subscription:
        """Call `receive`, or tell it where it is a ref, who is under a key: now, and at each change.

        Ends with `cancel()` of what is returned, or with the actor that is told. `Registered` is also an event on the
        event stream, for those who want to hear of every key.
        """
        call: Callable[[Registered], None] = receive.tell if isinstance(receive, ActorRef) else receive

        def receive_own(event: Registered) -> None:
            if event.key.name == key.name:
                call(event)

        subscription = self._events.subscribe(Registered, receive_own)
        if isinstance(receive, ActorRef):
            self._listen()
            others = [one for one in self._subscribers.get(receive, ()) if one.is_active]
            self._subscribers[receive] = [*others, subscription]
        call(Registered(key, self.find(key)))
        return subscription

    def _listen(self) -> None:
        # Not before there is somebody to forget: an end that nobody wants to hear of costs nothing.
        if self._ends is None:
            self._ends = self._events.subscribe(ActorEnded, self._ended)

    def _ended(self, event: ActorEnded) -> None:
        for subscription in self._subscribers.pop(event.ref, ()):
            subscription.cancel()
        for name in tuple(self._refs):
            self.unregister(Key[Any](name), event.ref)

    def _publish(self, key: Key[Any]) -> None:
        if self._events.wants(Registered):
            self._events.publish(Registered(key, self.find(key)))

    def __repr__(self) -> str:
        return f"<Registry {len(self._refs)} keys, {sum(map(len, self._refs.values()))} actors>"
