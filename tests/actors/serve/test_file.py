"""The door's tables of a market file."""

from __future__ import annotations

import pytest

from actors.market import MarketError, load_market
from actors.serve.file import load_door, parse_door

MARKET = """
[[providers]]
name = "alder"
services = ["chat"]
url = "http://127.0.0.1:8001/"

[serve]
origins = ["http://localhost:3000"]
commit_after = 5

[aliases.smart]
service = "chat"
where = { min_reputation = 70, max_price = "0.02" }

[tenants.acme]
budget = "5/day in Europe/Berlin"
models = ["swift"]
"""


def test_one_file_has_the_market_and_the_door(tmp_path):
    path = tmp_path / "market.toml"
    path.write_text(MARKET)
    assert [one.provider.name for one in load_market(path).providers] == ["alder"]
    config = load_door(path)
    assert (config.origins, config.commit_after) == (("http://localhost:3000",), 5.0)
    assert config.aliases["smart"].where.max_price == 20_000
    assert config.tenants["acme"].allowed == {"swift"}
    assert parse_door("").tenants == {}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[serve]\ncommit = 5", "serve.commit"),
        ("[serve]\ncommit_after = 0", "commit_after must be > 0"),
        ("[serve]\nmax_body = 10\nmax_bodies = 5", "max_bodies must be at least"),
        ('[aliases.smart]\nmodel = "x"', "did you mean 'models'"),
        ('[aliases.smart]\nstrategy = "best of all"', "strategy"),
        ("[aliases.smart]\nwhere = { min_reputaton = 5 }", "min_reputation"),
        ("[tenants]\nacme = 5", r"\[tenants.acme\]"),
        ('[tenants.acme]\nbudget = "much"', "tenants.acme.budget"),
        ('[tenants.acme]\nbudget = "5/dya"', "tenants.acme.budget"),
        ("[tenants.acme]\nbudget = 5", "tenants.acme.budget"),
    ],
)
def test_a_mistake_is_named_with_its_place(line, said):
    with pytest.raises(MarketError, match=said):
        parse_door(line)
