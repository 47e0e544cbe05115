"""Agents on AGIRAILS as providers: found in its list, paid through an escrow, with outcomes that can be looked up."""

from actors.agirails.network import AgirailsNetwork, LockedEscrow
from actors.agirails.registry import AgirailsRegistry

__all__ = ["AgirailsNetwork", "AgirailsRegistry", "LockedEscrow"]
