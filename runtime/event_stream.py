"""Publish and subscribe by type of event: those of the runtime, and those an application adds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self, TypeVar

from runtime.error_text import printable
from runtime.events import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.ref import ActorRef

E = TypeVar("E", bound=Event)


class Subscription:
    """One subscription to an event stream; it ends with `cancel`, or with the block it is the context manager of."""

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
    """Passes each published event to the subscribers of its type and of the base classes of its type.

    Subscribers are called in the order of their subscription, within `publish`. The error of one is reported to the
    loop's exception handler, and does not affect the others.
    """

    def __init__(self) -> None:
        self._subscriptions: dict[Subscription, None] = {}
        self._by_type: dict[type[Event], tuple[Subscription, ...]] = {}

    def subscribe(self, event_type: type[E], receive: Callable[[E], None] | ActorRef[E]) -> Subscription:
        """Call `receive` with each event of this type from now on; if it is a ref, tell it the event."""
        if not (isinstance(event_type, type) and issubclass(event_type, Event)):
            raise TypeError(f"event_type must be a subclass of Event, got {event_type!r:.100}")
        if not (callable(receive) or hasattr(receive, "tell")):
            raise TypeError(f"receive must be a function or the ref of an actor, got {receive!r:.100}")
        call: Callable[[Any], None] = receive if callable(receive) else receive.tell
        subscription = Subscription(self, event_type, call)
        self._subscriptions[subscription] = None
        self._forget(event_type)
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Remove a subscription; do nothing if it is not one of this stream."""
        if subscription in self._subscriptions:
            del self._subscriptions[subscription]
            self._forget(subscription.event_type)

    def _forget(self, event_type: type[Event]) -> None:
        """Forget the answers for the types that a subscription to `event_type` concerns; those of others stay."""
        for known in [one for one in self._by_type if issubclass(one, event_type)]:
            del self._by_type[known]

    def wants(self, event_type: type[Event]) -> bool:
        """Tell whether such an event has a subscriber, for a publisher that makes it only then."""
        found = self._by_type.get(event_type)
        return bool(found if found is not None else self._interested(event_type))

    def publish(self, event: Event) -> None:
        """Pass `event` to every subscriber of its type."""
        found = self._by_type.get(type(event))
        for subscription in found if found is not None else self._interested(type(event)):
            try:
                subscription.receive(event)
            except Exception as error:  # noqa: BLE001 - reported below; the publisher is not to fail with its subscribers.
                asyncio.get_running_loop().call_exception_handler(
                    {"message": f"a subscriber of {type(event).__name__} raised", "exception": printable(error)}
                )

    def _interested(self, event_type: type[Event]) -> tuple[Subscription, ...]:
        """Return the subscriptions for a type of event; remembered until one is added or removed."""
        found = tuple(one for one in self._subscriptions if issubclass(event_type, one.event_type))
        self._by_type[event_type] = found
        return found

    def __repr__(self) -> str:
        return f"<EventStream {len(self._subscriptions)} subscriptions>"
