"""The market: providers, prices and policies, from Python or from a TOML file."""

from actors.market.file import load_market, parse_market
from actors.market.listing import Listing, SharedQuota
from actors.market.market import Market
from actors.market.short_form import provider
from actors.market.tables import MarketError
from actors.market.webhook import Webhook

__all__ = ["Listing", "Market", "MarketError", "SharedQuota", "Webhook", "load_market", "parse_market", "provider"]
