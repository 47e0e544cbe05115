"""The three model servers of the demo as data: what they charge, bear and break, and how they are listed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actors.fake.files import read_config
from actors.market.model_listing import model_listing
from actors.tariffs.tariff import Tariff

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.fake.config import FakeConfig
    from actors.market.listing import Listing

OUTAGE = (3.0, 4.5)
"""From when until when the cheapest server is down, in seconds."""
NARROW = 800
"""The tokens that the smallest context window holds."""


class ModelServer(msgspec.Struct, frozen=True, kw_only=True):
    """One server of the demo: its config file, the preset that speaks to it, and its faults in words."""

    name: str
    preset: str
    config: str
    faults: str

    @property
    def file(self) -> str:
        """The name of its config file."""
        return f"{self.name}.toml"

    @property
    def terms(self) -> str:
        """What it speaks and charges, in words."""
        price = self.settings.models[0].price
        return f"speaks as {self.settings.dialect}, ${price.input} and ${price.output} a million tokens in and out"

    @property
    def bears(self) -> str:
        """How much it bears, in words."""
        (model,) = self.settings.models
        limit = model.limits.requests
        requests = "" if limit is None else f", {limit:,} requests a minute"
        return f"{model.context_window:,} tokens in its window{requests}"

    @property
    def settings(self) -> FakeConfig:
        """Return what its config file says."""
        return read_config(self.config)

    def listing(self, url: str) -> Listing:
        """Return its entry in the market, with the prices that the server states."""
        (model,) = self.settings.models
        price = model.price
        return model_listing(
            model.name,
            self.preset,
            name=self.name,
            base_url=f"{url}/v1",
            api_key="demo",
            tariff=Tariff(input=price.input, output=price.output, cache_read=price.cache_read),
            max_concurrency=50,
        )


def demo_servers(requests: int, *, seed: int) -> Sequence[ModelServer]:
    """Return the servers for a run of so many requests.

    The cheapest is the first choice, the least reliable, and has the smallest window. While it is down, its load
    exceeds the limit of the second, so that the third and dearest gets the rest.

    >>> [server.settings.models[0].price.input for server in demo_servers(300, seed=1)]
    ['0.10', '0.80', '2.50']
    """
    return alder(seed), birch(seed + 1, limit=2 * requests), cedar(seed + 2)


def alder(seed: int) -> ModelServer:
    """Return the server that is cheap and fails."""
    since, until = OUTAGE
    return ModelServer(
        name="alder",
        preset="openai",
        faults=f"fails 10 % of its calls, cuts off 10 %, and is down from {since:g} s to {until:g} s",
        config=f"""\
seed = {seed}
[[models]]
name = "alder-nano"
price = {{input = "0.10", cache_read = "0.025", output = "0.40"}}
latency = {{kind = "uniform", low = 0.02, high = 0.08}}
token_speed = 1000
context_window = {NARROW}
answers = [{{kind = "echo"}}]
[[plan.faults]]
kind = "outage"
since = {since}
until = {until}
[[plan.faults]]
kind = "outage"
share = 0.1
[[plan.faults]]
kind = "cut"
share = 0.1
""",
    )


def birch(seed: int, *, limit: int) -> ModelServer:
    """Return the server that throttles; `limit` is in requests a minute."""
    return ModelServer(
        name="birch",
        preset="anthropic",
        faults="answers 429 to 25 % of the calls that it should bear",
        config=f"""\
seed = {seed}
dialect = "anthropic"
[[models]]
name = "birch-mini"
price = {{input = "0.80", output = "4.00"}}
latency = {{kind = "uniform", low = 0.04, high = 0.12}}
token_speed = 800
limits = {{requests = {limit}}}
answers = [{{kind = "echo"}}]
[[plan.faults]]
kind = "throttle"
share = 0.25
retry_after = 0.5
""",
    )


def cedar(seed: int) -> ModelServer:
    """Return the server that is dear, slow and reliable."""
    return ModelServer(
        name="cedar",
        preset="openrouter",
        faults="fails 1 % of its calls, and is the slowest",
        config=f"""\
seed = {seed}
dialect = "openrouter"
[[models]]
name = "cedar-large"
price = {{input = "2.50", cache_read = "0.25", output = "10.00"}}
latency = {{kind = "uniform", low = 0.1, high = 0.25}}
token_speed = 600
answers = [{{kind = "echo"}}]
[[plan.faults]]
kind = "outage"
share = 0.01
""",
    )
