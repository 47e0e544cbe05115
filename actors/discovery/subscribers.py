"""The subscribers to changes of a service's providers, and what each of them was sent last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.providers.provider import Provider  # noqa: TC001 - msgspec resolves the annotations below.
from actors.validation import check_text
from runtime import ActorRef, MailboxFull, Message

if TYPE_CHECKING:
    from collections.abc import Iterator


class ProvidersChanged(Message, frozen=True, kw_only=True):
    """Sent to subscribers: the providers of a service from now on, as declared, in the registry's order."""

    service: str
    providers: tuple[Provider, ...]


class SubscribeProviders(Message, frozen=True, kw_only=True):
    """Send `ProvidersChanged` to `subscriber`: once as soon as the providers are known, and whenever they change.

    It ends with the subscriber, by `UnsubscribeProviders`, or when discovery is restarted. Subscribing twice changes
    nothing. While a service has subscribers it is looked up again when its answer is old, even if no actor asks.
    """

    service: str
    subscriber: ActorRef[ProvidersChanged]

    def __post_init__(self) -> None:
        check_subscriber(self)


class UnsubscribeProviders(Message, frozen=True, kw_only=True):
    """Send `subscriber` no more changes of a service."""

    service: str
    subscriber: ActorRef[ProvidersChanged]

    def __post_init__(self) -> None:
        check_subscriber(self)


def check_subscriber(message: SubscribeProviders | UnsubscribeProviders) -> None:
    """Raise `TypeError` if `service` is not a str, or `subscriber` is not the ref of an actor."""
    check_text("service", message.service)
    if not isinstance(message.subscriber, ActorRef):
        raise TypeError(f"subscriber must be the ref of an actor, got {message.subscriber!r:.100}")


class ProviderSubscribers:
    """The subscribers by service; one whose mailbox is full is sent the change after the next look-up."""

    def __init__(self) -> None:
        self._last_sent: dict[str, dict[ActorRef[ProvidersChanged], tuple[Provider, ...] | None]] = {}

    def __contains__(self, service: str) -> bool:
        """Tell whether a service has subscribers."""
        return service in self._last_sent

    def services(self) -> tuple[str, ...]:
        """Return the services that have subscribers."""
        return tuple(self._last_sent)

    def add(self, service: str, ref: ActorRef[ProvidersChanged]) -> None:
        """Add a subscriber, to which nothing has been sent yet."""
        self._last_sent.setdefault(service, {}).setdefault(ref, None)

    def remove(self, ref: ActorRef[ProvidersChanged], service: str | None = None) -> bool:
        """Remove a subscriber from one service, or from all; return whether it is subscribed to none any more."""
        for name in [service] if service is not None else tuple(self._last_sent):
            refs = self._last_sent.get(name, {})
            refs.pop(ref, None)
            if not refs:
                self._last_sent.pop(name, None)
        return not any(ref in refs for refs in self._last_sent.values())

    def notify(self, service: str, providers: tuple[Provider, ...]) -> Iterator[ActorRef[ProvidersChanged]]:
        """Send `providers` to each subscriber that was sent others before; yield those whose mailbox is full."""
        refs = self._last_sent.get(service, {})
        message = ProvidersChanged(service=service, providers=providers)
        for ref, last_sent in tuple(refs.items()):
            if last_sent == providers:
                continue
            try:
                ref.tell(message)
            except MailboxFull:
                yield ref
            else:
                refs[ref] = providers

    def __repr__(self) -> str:
        return f"<ProviderSubscribers {sum(map(len, self._last_sent.values()))} of {len(self._last_sent)} services>"
