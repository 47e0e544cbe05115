"""The actor Discovery: finds the providers of a service, and keeps its answers fresh."""

from actors.discovery.discovery import Discovery, Registry
from actors.discovery.messages import Discover
from actors.discovery.offers import Offers
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
