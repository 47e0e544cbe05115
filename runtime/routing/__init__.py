"""One ref for several actors: routers, pools, the strategies that choose, and the first answer of many."""

from runtime.routing.gather import ask_first
from runtime.routing.router import pool, router
from runtime.routing.strategies import ConsistentHash, LeastBusy, RoundRobin, Routing

__all__ = ["ConsistentHash", "LeastBusy", "RoundRobin", "Routing", "ask_first", "pool", "router"]
