"""Who wants to be told when the providers of a service change, and what each of them was told last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.providers.provider import Provider  # noqa: TC001 - msgspec resolves the annotations below.
from actors.validation import check_text
from runtime import ActorRef, MailboxFull, Message

if TYPE_CHECKING:
    from collections.abc import Iterator


class ProvidersChanged(Message, frozen=True, kw_only=True):
    """Told to subscribers: who offers a service from now on, as declared, in the registry's order."""

    service: str
    providers: tuple[Provider, ...]


class SubscribeProviders(Message, frozen=True, kw_only=True):
    """Have `ProvidersChanged` told to `subscriber`: once as soon as it is known, and whenever the registry differs.

    It ends with the subscriber, or by `UnsubscribeProviders`; a discovery that is restarted has forgotten it too.
    Subscribing twice changes nothing. While a service has subscribers it is looked up again when its time is up, also
    if nobody asks.
    """

    service: str
    subscriber: ActorRef[ProvidersChanged]

    def __post_init__(self) -> None:
        check_subscriber(self)


class UnsubscribeProviders(Message, frozen=True, kw_only=True):
    """Tell `subscriber` nothing more of a service."""

    service: str
    subscriber: ActorRef[ProvidersChanged]

    def __post_init__(self) -> None:
        check_subscriber(self)


def check_subscriber(message: SubscribeProviders | UnsubscribeProviders) -> None:
    """Raise `TypeError` for what names no service, or nobody to tell."""
    check_text("service", message.service)
    if not isinstance(message.subscriber, ActorRef):
        raise TypeError(f"subscriber must be the ref of an actor, got {message.subscriber!r:.100}")


class ProviderSubscribers:
    """The subscribers by service; whoever cannot be told now is told with the next look-up."""

    def __init__(self) -> None:
        self._told: dict[str, dict[ActorRef[ProvidersChanged], tuple[Provider, ...] | None]] = {}

    def __contains__(self, service: str) -> bool:
        """Tell whether anybody has subscribed to a service."""
        return service in self._told

    def add(self, service: str, ref: ActorRef[ProvidersChanged]) -> None:
        """Enter a subscriber who has been told nothing yet."""
        self._told.setdefault(service, {}).setdefault(ref, None)

    def remove(self, ref: ActorRef[ProvidersChanged], service: str | None = None) -> bool:
        """Forget a subscriber, of one service or of all; return whether it has none left."""
        for name in [service] if service is not None else tuple(self._told):
            refs = self._told.get(name, {})
            refs.pop(ref, None)
            if not refs:
                self._told.pop(name, None)
        return not any(ref in refs for refs in self._told.values())

    def tell(self, service: str, providers: tuple[Provider, ...]) -> Iterator[ActorRef[ProvidersChanged]]:
        """Tell everybody who has been told something else before; yield those whose mailbox is full."""
        refs = self._told.get(service, {})
        message = ProvidersChanged(service=service, providers=providers)
        for ref, told in tuple(refs.items()):
            if told == providers:
                continue
            try:
                ref.tell(message)
            except MailboxFull:
                yield ref
            else:
                refs[ref] = providers

    def __repr__(self) -> str:
        return f"<ProviderSubscribers {sum(map(len, self._told.values()))} of {len(self._told)} services>"
