"""Requests of one program served on several nodes: calls are made there, and money and receipts stay at home."""

from actors.spread.deputy import deputy_by_text
from actors.spread.messages import GetNodes
from actors.spread.spread import Spread

__all__ = ["GetNodes", "Spread", "deputy_by_text"]
