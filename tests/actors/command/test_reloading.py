"""Files of a door that are read again: the caps that the ledger was told go with the market, or are put back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from actors.command.reloading import TenantCaps
from actors.command.serve import DoorAlerts, Reloader, ServeOptions
from actors.errors.families import LedgerDown
from actors.ledger.messages import GetStatement, SetCap
from actors.serve import DoorConfig, Tenant
from tests.actors.serve.doors import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.actors.serve.doors import Stage

MARKET = """
[[providers]]
name = "birch"
kind = "compatible"
model = "brisk"
base_url = "http://127.0.0.1:1/v1"
api_key = "none"
price = "0.01"

[tenants.a]
budget = "2"
[tenants.b]
budget = "{}/day"
[tenants.c]
budget = "2"
"""
CAPS = {"a": "1", "b": "1/day"}


class Refusing:
    """A ledger that does not answer if it is to change these caps."""

    def __init__(self, ledger: Any, *names: str) -> None:
        self.ledger, self.names = ledger, set(names)
        self.asked: list[str] = []

    async def ask(self, request: Any, *, timeout: float) -> Any:  # noqa: ASYNC109 - as a reference's.
        name = request.account if isinstance(request, SetCap) else request.name
        self.asked.append(name)
        if name in self.names:
            raise LedgerDown("it is restarting")
        return await self.ledger.ask(request, timeout=timeout)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    config = DoorConfig(tenants={name: Tenant(budget=cap) for name, cap in CAPS.items()})
    async with serving("swift", config=config, caps=CAPS) as made:
        yield made


async def caps_at(stage: Stage) -> dict[str, str]:
    statements = [await stage.ledger.ask(GetStatement(name), timeout=1.0) for name in CAPS]
    return {one.name: f"{one.cap} {one.renewal and one.renewal.unit}" for one in statements}


def reloader_of(stage: Stage, path: Path, ledger: Any) -> Reloader:
    options = ServeOptions(market=str(path), journal="")
    return Reloader(options, stage.door, ledger, DoorAlerts(stage.system, (), options))


async def reload(reloader: Reloader, capsys: pytest.CaptureFixture[str], *, text: str = "") -> str:
    if text:
        Path(reloader._options.market).write_text(text)  # noqa: ASYNC240 - nothing else has a turn meanwhile.
    reloader.begin()
    assert reloader._reloading is not None
    await reloader._reloading
    return capsys.readouterr().err


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "market.toml"
    path.write_text(MARKET.format("2"))
    return path


async def test_a_cap_that_is_not_changed_has_those_before_it_put_back(
    stage: Stage, path: Path, capsys: pytest.CaptureFixture[str]
):
    ledger = Refusing(stage.ledger, "b")
    reloader = reloader_of(stage, path, ledger)
    told = await reload(reloader, capsys)
    assert "the cap of 'b' was not changed" in told
    assert "caps of b may be those of the new file until it is read again; the door goes on as before" in told
    assert await caps_at(stage) == {"a": "$1.00 None", "b": "$1.00 day"}
    ledger.names, ledger.asked = set(), []
    text = MARKET.format("1").replace('[tenants.c]\nbudget = "2"', "").replace('budget = "2"', 'budget = "1"')
    assert "serving auto" in await reload(reloader, capsys, text=text)
    assert ledger.asked == ["b"]  # What the ledger was told of that is not known; of the other it is.


async def test_a_market_that_is_not_taken_up_has_all_caps_put_back(
    stage: Stage, path: Path, capsys: pytest.CaptureFixture[str]
):
    reloader = reloader_of(stage, path, stage.ledger)
    names = stage.door.names
    stage.supervisor.stop()
    await asyncio.sleep(1.0)
    assert "never handled; the door goes on as before" in await reload(reloader, capsys)
    assert await caps_at(stage) == {"a": "$1.00 None", "b": "$1.00 day"}
    assert (stage.door.names, set(stage.door.config.tenants)) == (names, set(CAPS))


async def test_a_cap_is_told_again_if_it_is_not_known_whether_it_was_taken_on(stage: Stage):
    ledger = Refusing(stage.ledger, "b")
    caps = TenantCaps(ledger, CAPS)  # type: ignore[arg-type]
    assert await caps.put_back(CAPS | {"b": "3"}) == (
        ", and the caps of b may be those of the new file until it is read again"
    )
    ledger.names = set()
    assert (await caps.put_back(CAPS), ledger.asked) == ("", ["b", "b"])
