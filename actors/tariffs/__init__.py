"""What calls to models cost: tariffs and price lists, the usage that providers tell, and what a call may need."""

from actors.tariffs.demand import Demand
from actors.tariffs.tariff import Tariff, Tier
from actors.tariffs.usage import Usage

__all__ = ["Demand", "Tariff", "Tier", "Usage"]
