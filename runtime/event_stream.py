"""Publish and subscribe by type: the system's facts, and any an application adds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self, TypeVar

from runtime.events import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.ref import ActorRef

E = TypeVar("E", bound=Event)


class Subscription:
    """One subscriber of an event stream; `cancel` ends it, as does leaving it as a context manager."""

    __slots__ = ("_stream", "event_type", "is_active", "receive")

    def __init__(self, stream: EventStream, event_type: type[Event], receive: Callable[[Any], None]) -> None:
        self._stream = stream
        self.event_type = event_type
        self.receive = receive
        self.is_active = True

    def cancel(self) -> None:
        """End the subscription; a second call does nothing."""
        self.is_active = False
        self._stream.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()


class EventStream:
    """Hands each published event to those who subscribed to its type or to a parent of its type.

    Subscribers are called in the order of their subscription, within `publish`. One that raises is reported to
    the loop's exception handler and does not disturb the others.
    """

    def __init__(self) -> None:
        self._subscriptions: list[Subscription] = []
        self._by_type: dict[type[Event], tuple[Subscription, ...]] = {}

    def subscribe(self, event_type: type[E], receive: Callable[[E], None] | ActorRef[E]) -> Subscription:
        """Call `receive`, or tell it where it is a ref, for each event of this type from now on."""
        if not (isinstance(event_type, type) and issubclass(event_type, Event)):
            raise TypeError(f"an event stream is subscribed to by a class of events, got {event_type!r:.100}")
        if not (callable(receive) or hasattr(receive, "tell")):
            raise TypeError(f"events go to a function or to the ref of an actor, got {receive!r:.100}")
        call: Callable[[Any], None] = receive if callable(receive) else receive.tell
        subscription = Subscription(self, event_type, call)
        self._subscriptions.append(subscription)
        self._by_type.clear()
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Forget a subscription; nothing happens where it is not one of this stream."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
            self._by_type.clear()

    def wants(self, event_type: type[Event]) -> bool:
        """Tell whether anybody would receive such an event, for a publisher that makes it only then."""
        found = self._by_type.get(event_type)
        return bool(found if found is not None else self._interested(event_type))

    def publish(self, event: Event) -> None:
        """Hand `event` to every subscriber of its type."""
        found = self._by_type.get(type(event))
        for subscription in found if found is not None else self._interested(type(event)):
            try:
                subscription.receive(event)
            except Exception as error:  # noqa: BLE001 - reported below; a publisher does not answer for its readers.
                asyncio.get_running_loop().call_exception_handler(
                    {"message": f"a subscriber of {type(event).__name__} raised", "exception": error}
                )

    def _interested(self, event_type: type[Event]) -> tuple[Subscription, ...]:
        """Find out who receives a type of event, once for as long as nobody comes or goes."""
        found = tuple(one for one in self._subscriptions if issubclass(event_type, one.event_type))
        self._by_type[event_type] = found
        return found

    def __repr__(self) -> str:
        return f"<EventStream {len(self._subscriptions)} subscriptions>"
