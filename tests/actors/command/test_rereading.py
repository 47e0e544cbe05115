"""The files of a door are read again: whole, each once, and what cannot be used is told with its file and line."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from actors import Supervisor
from actors.command.market_text import MarketText
from actors.command.serve import DoorAlerts, Reloader, ServeOptions
from actors.ledger import Ledger
from actors.serve.app import make_door
from actors.serve.key_file import add_key
from actors.serve.keys import KeyRing, new_key
from runtime import ActorSystem

MARKET = """
[[providers]]
name = "alder"
services = ["s"]
url = "http://127.0.0.1:1/"
[tenants.acme]
budget = "0.50"
"""
ALERTS = """
[[alerts]]
url = "https://alerts.example.com/{path}"
secret = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
"""


@asynccontextmanager
async def door_of(path, keys=None):
    """A door that is not served, and what reads its files again."""
    options = ServeOptions(market=str(path), journal="", keys=keys)
    text = MarketText(str(path))
    market = text.market()
    async with ActorSystem("door", log=False) as system:
        alerts = DoorAlerts(system, market.alerts, options)
        ledger = system.spawn(lambda: Ledger(accounts={"acme": "0.50"}))
        supervisor = system.spawn(lambda: Supervisor(market, ledger=ledger))
        door = make_door(supervisor, market, text.door(), KeyRing())
        yield alerts, Reloader(options, door, ledger, alerts)


async def test_other_alerts_in_the_market_file_hold_after_it_is_read_again(tmp_path, capsys):
    path = tmp_path / "market.toml"
    path.write_text(MARKET)
    async with door_of(path) as (alerts, reloader):
        assert alerts.monitor is None
        for named in (["one"], ["one", "two"], ["two"], []):
            path.write_text(MARKET + "".join(ALERTS.format(path=one) for one in named))
            await reloader._reload(after=None)
            assert "serving s\n" in capsys.readouterr().err
            await asyncio.sleep(0.1)
            told = [webhook.url.rpartition("/")[2] for webhook, _ in alerts._senders.recipient.actor.senders]
            assert told == named
            assert alerts.monitor is not None
        path.write_text(MARKET + ALERTS.format(path="one") + "[[alerts]]\nurl = 1\n")
        await reloader._reload(after=None)
        assert "market.toml: alerts[1].url (line 13)" in capsys.readouterr().err
        assert alerts._senders.recipient.actor.senders == []


def test_all_that_is_taken_of_a_market_file_is_of_one_reading(tmp_path):
    path = tmp_path / "market.toml"
    path.write_text(MARKET)
    text = MarketText(str(path))
    path.write_text(MARKET.replace("alder", "birch").replace("acme", "initech"))
    assert [one.provider.name for one in text.market().providers] == ["alder"]
    assert list(text.door().tenants) == ["acme"]


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("[", "market.toml: line 8: not valid TOML"),
        ('[aliases.s]\nservice = "s"\n', "market.toml: aliases.s (line 8): the name 's' is an alias and a service"),
        ('[aliases.t]\nservice = "v"\n', "market.toml: aliases.t (line 8): alias 't' names 'v', which no provider"),
        ('[aliases.t]\nwhat = "v"\n', "market.toml: aliases.t.what (line 9): unknown key"),
        ('[tenants.initech]\nbudget = "1/dya"\n', "market.toml: tenants.initech.budget (line 9): "),
        ('[[providers]]\nname = "b"\nservices = ["auto"]\nurl = "http://b.example.com/"\n',
         "market.toml: providers[1] ('b', line 8): the name 'auto' stands for any model; give"),
        ("[serve]\nport = 1\n", "market.toml: serve.port (line 9): this is the option --port of the command; it needs"),
    ],
)  # fmt: skip
async def test_what_cannot_be_used_is_told_with_file_line_and_remedy(tmp_path, capsys, added, said):
    path = tmp_path / "market.toml"
    path.write_text(MARKET)
    async with door_of(path) as (_, reloader):
        path.write_text(MARKET + added)
        await reloader._reload(after=None)
        error = capsys.readouterr().err
        assert said in error
        assert error.endswith("; the door goes on as before\n")


async def test_a_key_of_no_tenant_is_told_with_its_line(tmp_path, capsys):
    path, keys = tmp_path / "market.toml", tmp_path / "keys.jsonl"
    path.write_text(MARKET)
    for tenant in ("acme", "initech"):
        shown, kept = new_key(tenant)
        assert shown
        add_key(keys, kept)
    async with door_of(path, str(keys)) as (_, reloader):
        reloader._door.keys = KeyRing([kept])
        await reloader._reload(after=None)
        said = f"keys.jsonl: line 2: the key {kept.id} belongs to 'initech', of which {path} has no [tenants.initech]"
        assert said in capsys.readouterr().err
