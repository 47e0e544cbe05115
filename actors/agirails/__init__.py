"""AGIRAILS: agents hired over its network as providers, found, paid in escrow, and asked what became of a call."""

from actors.agirails.network import AgirailsNetwork, LockedEscrow
from actors.agirails.registry import AgirailsRegistry

__all__ = ["AgirailsNetwork", "AgirailsRegistry", "LockedEscrow"]
