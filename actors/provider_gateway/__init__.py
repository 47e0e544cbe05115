"""The actor ProviderGateway: makes all calls to one provider."""

from actors.provider_gateway.gateway import ProviderGateway
from actors.provider_gateway.messages import Call, CheckHealth, Health

__all__ = ["Call", "CheckHealth", "Health", "ProviderGateway"]
