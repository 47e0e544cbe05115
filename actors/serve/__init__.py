"""The front door: the market by a base URL, for clients of model APIs in any language."""

from actors.serve.app import app
from actors.serve.config import DoorConfig
from actors.serve.keys import ApiKey, KeyRing, new_key
from actors.serve.names import Alias
from actors.serve.switching import replace_market
from actors.serve.tenants import Tenant

__all__ = ["Alias", "ApiKey", "DoorConfig", "KeyRing", "Tenant", "app", "new_key", "replace_market"]
