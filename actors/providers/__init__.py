"""Which providers can be called and how good they are: as declared, as observed, and in which order to try them."""

from actors.providers.bandit import ScoreAnswer
from actors.providers.health import WatchConfig
from actors.providers.provider import Provider, ProviderFilter
from actors.providers.requirement import Requirement
from actors.providers.selection import rank, select_best

__all__ = ["Provider", "ProviderFilter", "Requirement", "ScoreAnswer", "WatchConfig", "rank", "select_best"]
