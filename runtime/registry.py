"""The actors of a system by the service they render: refs under keys, as long as their actors live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic

import msgspec
from typing_extensions import TypeVar

from runtime.event_stream import EventStream
from runtime.events import ActorEnded, Event
from runtime.ref import ActorRef

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.event_stream import Subscription

M = TypeVar("M", default=Any)


class Key(msgspec.Struct, Generic[M], frozen=True):
    """The name of a service, typed by the messages its actors take.

    >>> Key[str]("translators") == Key("translators")
    True
    """

    name: str


class Registered(Event, frozen=True):
    """The actors under a key; subscribers get it at once, and each time an actor is added or removed."""

    key: Key[Any]
    refs: tuple[ActorRef, ...]


class KeySubscribers(EventStream):
    """The subscribers of one key, so that a change of it calls no others."""

    def __init__(self, ended: Callable[[KeySubscribers, Subscription], None], name: str) -> None:
        super().__init__()
        self._ended = ended
        self.name = name

    @property
    def is_empty(self) -> bool:
        """Tell whether the last one has gone."""
        return not self._subscriptions

    def remove(self, subscription: Subscription) -> None:
        super().remove(subscription)
        self._ended(self, subscription)


class ActorRegistry:
    """Refs by key, in the order of their registration. An actor that ends is removed; one that restarts stays.

    Keys of the same name are the same key.
    """

    def __init__(self, events: EventStream) -> None:
        self._events = events
        self._refs: dict[str, dict[ActorRef[Any], None]] = {}
        self._names: dict[ActorRef[Any], dict[str, None]] = {}
        """The names of the keys of each actor, so that its end concerns these alone."""
        self._by_key: dict[str, KeySubscribers] = {}
        self._by_actor: dict[ActorRef[Any], dict[Subscription, None]] = {}
        self._actors: dict[Subscription, ActorRef[Any]] = {}
        self._ends: Subscription | None = None

    def register(self, key: Key[M], ref: ActorRef[M]) -> None:
        """Add an actor under a key; do nothing if it is there already, or has stopped."""
        if ref.recipient.closed or ref in self._refs.get(key.name, {}):
            return
        self._listen()
        self._refs.setdefault(key.name, {})[ref] = None
        self._names.setdefault(ref, {})[key.name] = None
        self._publish(key)

    def unregister(self, key: Key[M], ref: ActorRef[M]) -> None:
        """Remove an actor from a key; do nothing if it is not under it."""
        refs = self._refs.get(key.name, {})
        if ref in refs:
            del refs[ref]
            names = self._names[ref]
            del names[key.name]
            if not names:
                del self._names[ref]
            if not refs:
                del self._refs[key.name]
            self._publish(key)

    def find(self, key: Key[M]) -> tuple[ActorRef[M], ...]:
        """Return the actors under a key that accept messages, in the order of their registration."""
        return tuple(ref for ref in self._refs.get(key.name, ()) if not ref.recipient.closed)

    def find_one(self, key: Key[M]) -> ActorRef[M] | None:
        """Return the first of the actors under a key that accept messages, or None; the others are not looked at.

        >>> from runtime.event_stream import EventStream
        >>> ActorRegistry(EventStream()).find_one(Key("translators")) is None
        True
        """
        return next((ref for ref in self._refs.get(key.name, ()) if not ref.recipient.closed), None)

    def subscribe(self, key: Key[Any], receive: Callable[[Registered], None] | ActorRef[Registered]) -> Subscription:
        """Call `receive` with the actors under a key, now and at each change; if it is a ref, tell it.

        The subscription ends with its `cancel()`, or with the actor of the ref. To observe every key, subscribe to
        `Registered` on the event stream.
        """
        call: Callable[[Registered], None] = receive.tell if isinstance(receive, ActorRef) else receive
        subscribers = self._by_key.get(key.name)
        if subscribers is None:
            subscribers = self._by_key[key.name] = KeySubscribers(self._unsubscribed, key.name)
        subscription = subscribers.subscribe(Registered, call)
        if isinstance(receive, ActorRef):
            self._listen()
            self._by_actor.setdefault(receive, {})[subscription] = None
            self._actors[subscription] = receive
        call(Registered(key, self.find(key)))
        return subscription

    def _unsubscribed(self, subscribers: KeySubscribers, subscription: Subscription) -> None:
        if subscribers.is_empty and self._by_key.get(subscribers.name) is subscribers:
            del self._by_key[subscribers.name]
        actor = self._actors.pop(subscription, None)
        if actor is not None:
            own = self._by_actor[actor]
            del own[subscription]
            if not own:
                del self._by_actor[actor]

    def _listen(self) -> None:
        # Not before there is an actor to remove: without a subscriber, the end of an actor costs nothing.
        if self._ends is None:
            self._ends = self._events.subscribe(ActorEnded, self._ended)

    def _ended(self, event: ActorEnded) -> None:
        for subscription in tuple(self._by_actor.get(event.ref, ())):
            subscription.cancel()
        for name in tuple(self._names.get(event.ref, ())):
            self.unregister(Key[Any](name), event.ref)

    def _publish(self, key: Key[Any]) -> None:
        subscribers = self._by_key.get(key.name)
        if subscribers is not None or self._events.wants(Registered):
            event = Registered(key, self.find(key))
            self._events.publish(event)
            if subscribers is not None:
                subscribers.publish(event)

    def __repr__(self) -> str:
        return f"<ActorRegistry {len(self._refs)} keys, {sum(map(len, self._refs.values()))} actors>"
