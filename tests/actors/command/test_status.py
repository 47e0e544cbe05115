"""How far a run has come, by its journal: while it is under way, after it ended, and after it was killed."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from actors import Done, FunctionTransport, Ledger, Listing, Market, Provider, Supervisor, robust_batch
from actors.batch.resuming import KeptItem, KeptRun
from actors.command.app import run_app
from actors.command.status import recent_rate, status_of
from actors.ledger.account import Account
from actors.ledger.page import Statement
from actors.ledger.reading import BookView
from actors.money import Micros
from runtime import ActorSystem
from runtime.persistence import Owner, owner_of
from tests.actors.ledger.journalled import reserve, spawn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ME = Owner(7, "here")


@pytest.fixture
def status(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(path: Path, *options: str) -> str:
        assert run_app(["status", str(path), *options]) == 0
        captured = capfd.readouterr()
        assert captured.err == ""
        return captured.out

    return run


def book(owner: Owner | None, **figures: Any) -> BookView:
    statement = Statement(**{"name": "batch", "cap": Micros(1_000_000)} | figures)
    total = Statement(name="total")
    return BookView(path="j", owner=owner, total=total, accounts=(statement,), held=(), under_way=0)


def test_the_figures_of_a_run() -> None:
    run = KeptRun(id="a1", account="batch", began=0.0, requests=100)
    items = [KeptItem("done", at=float(at)) for at in range(1, 41)]
    items += [KeptItem("failed", at=41.0), KeptItem("budget", at=42.0), KeptItem("unknown", at=43.0), KeptItem("again")]
    figures = {"settled": Micros(400_000), "held": Micros(10_000)}
    seen = status_of(run, items, book(ME, **figures), now=44.0)
    assert (seen.done, seen.failed, seen.budget, seen.unknown, seen.left) == (40, 1, 1, 1, 59)
    assert (seen.spent, seen.held, seen.cap, seen.owner) == ("0.40", "0.01", "1.00", "process 7 on here")
    assert (seen.rate, seen.seconds_left) == (1.0, 59.0)
    ended = status_of(run, items, book(None, **figures), now=44.0)
    assert (ended.owner, ended.rate, ended.seconds_left, ended.left) == (None, None, None, 59)
    unknown = status_of(KeptRun(id="a1", account="other", began=0.0), items, book(ME), now=44.0)
    assert (unknown.left, unknown.seconds_left, unknown.spent, unknown.cap) == (None, None, "0.00", None)


def test_the_rate_is_that_of_the_last_items_and_falls_while_none_ends() -> None:
    ended = [*range(100), *(1_000 + 0.1 * number for number in range(100))]
    assert recent_rate(ended, now=1_010.0) == pytest.approx(10.0)
    assert recent_rate(ended, now=2_000.0) == pytest.approx(0.1)
    assert recent_rate([5.0, 5.0], now=5.0) is None
    assert recent_rate([], now=5.0) is None


async def test_it_is_read_while_the_batch_runs_and_when_it_has_ended(tmp_path: Path, status: Any) -> None:
    path = tmp_path / "run.journal"
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def shout(call: Any) -> str:
        if call.input == "wait":
            begun.set()
            await go_on.wait()
        return call.input.upper()

    alder = Listing(
        provider=Provider(name="alder", services={"uppercase"}, price="0.02"),
        transport=lambda: FunctionTransport(shout, paid=True, idempotent="no"),
    )
    async with ActorSystem("run", log=False) as system:
        ledger = system.spawn(lambda: Ledger(journal=path))
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[alder]), ledger=ledger))
        options: Any = {"service": "uppercase", "budget": "1", "journal": path}
        async with robust_batch(supervisor, ["a", "b", "wait"], **options) as outcomes:
            assert isinstance(await anext(outcomes), Done)
            assert isinstance(await anext(outcomes), Done)
            await begun.wait()
            await asyncio.sleep(0)
            line = json.loads(status(path, "--json"))
            assert (line["account"], line["done"], line["spent"], line["cap"]) == ("batch", 2, "0.04", "1.00")
            assert line["owner"] == str(owner_of(path))
            shown = status(path)
            assert f"under way in {owner_of(path)}" in shown
            assert "2 done, 0 failed, 0 unknown" in shown
            assert "$0.04 of $1.00" in shown
            go_on.set()
            assert [one async for one in outcomes]
    shown = status(path)
    assert "not under way" in shown
    assert "3 done, 0 failed, 0 unknown" in shown
    assert "$0.06 of $1.00" in shown
    assert "rate" not in shown


async def test_a_journal_without_a_run_has_accounts(tmp_path: Path, status: Any) -> None:
    path = tmp_path / "run.journal"
    async with ActorSystem("bank", log=False) as system:
        ledger, _ = spawn(system, path)
        await reserve(ledger, "k", 100)
    shown = status(path)
    assert shown.startswith("No run is kept in this journal; its accounts:\n")
    assert str(Account(name="run", cap=Micros(1_000), reserved=Micros(0), held=Micros(100))) in shown
    assert status(path, "--json") == ""


def test_what_is_parked_is_listed_until_when_and_is_no_part_of_the_rate() -> None:
    run = KeptRun(id="a1", account="batch", began=0.0, requests=10)
    items = [KeptItem("done", at=1.0), KeptItem("done", at=2.0)]
    items += [KeptItem("parked", at=2.5, until=until) for until in (172_800.0, 86_400.0)]
    seen = status_of(run, items, book(ME), now=3.0)
    assert (seen.parked, seen.left, seen.rate) == (2, 8, 1.0)
    assert seen.parked_until is not None
    assert seen.parked_until.startswith("1970-01-02")
    assert status_of(run, [], book(ME), now=3.0).parked_until is None
