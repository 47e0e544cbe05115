"""The actor Discovery: which providers offer a service, cached and kept fresh."""

from actors.discovery.discovery import Discovery, Registry
from actors.discovery.found import Offers
from actors.discovery.messages import Discover
from actors.discovery.subscribers import ProvidersChanged, SubscribeProviders, UnsubscribeProviders

__all__ = [
    "Discover",
    "Discovery",
    "Offers",
    "ProvidersChanged",
    "Registry",
    "SubscribeProviders",
    "UnsubscribeProviders",
]
