"""The commands that show a journal: what they print of one in use, of one that ended, and of what is none."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from actors.command.app import run_app
from actors.ledger import BookCall, Costing, GetStatement, MarkUnderWay, Resolve
from actors.ledger.keys import provider_key
from actors.ledger.messages import AwaitCommit
from actors.money import Micros, to_micros
from actors.tariffs import Tariff, Usage
from runtime import ActorSystem
from runtime.persistence import owner_of
from tests.actors.ledger.journalled import reserve, spawn
from tests.runtime.persistence.disks import copy_as_killed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runtime import ActorRef

NAME = "al[bold]der\x1b[31m"
KEY = "order of Mrs Smith"


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs `understudy` here, and returns its exit code, output and errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = run_app([str(one) for one in arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


async def spend(ledger: ActorRef[Any]) -> int:
    """Leave calls that were paid, released, held and are under way; return the number of the first that is held."""
    tariff = Tariff(input="3", output="15")
    costing = Costing(basis="exact", usage=Usage(input=10, output=5), tariff=tariff)
    ledger.tell(BookCall(await reserve(ledger, "paid", 300), "yes", Micros(105), costing=costing))
    ledger.tell(BookCall(await reserve(ledger, "no", 50), "no"))
    held = await reserve(ledger, KEY, 50, provider=NAME)
    ledger.tell(BookCall(held, "held"))
    ledger.tell(BookCall(await reserve(ledger, "short", 40, held_for=60.0), "held"))
    await reserve(ledger, "open", 10)
    await ledger.ask(AwaitCommit(), timeout=1)
    return held.number


async def test_held_calls_are_shown_while_the_ledger_runs(tmp_path: Path, command: Any) -> None:
    path = tmp_path / "run.journal"
    async with ActorSystem("bank", log=False) as system:
        ledger, _ = spawn(system, path)
        number = await spend(ledger)
        code, shown, err = command("held", path)
        assert (code, err) == (0, "")
        assert f"{number} " in shown
        assert "al[bold]der\\x1b[31m" in shown
        assert provider_key(KEY) in shown.replace("\n", "")
        assert "$0.00005" in shown
        assert "2 calls are held, at most $0.00009. 1 under way in process" in shown
        assert "understudy resolve JOURNAL ID --paid USD, or --not-paid" in shown
        assert "\x1b" not in shown
        assert "Smith" not in shown

        ledger.tell(MarkUnderWay(number + 1))
        await ledger.ask(AwaitCommit(), timeout=1)
        code, told, err = command("held", path, "--json")
        first, second = map(json.loads, told.splitlines())
        assert (code, err, list(first)[:5]) == (0, "", ["id", "since", "provider", "at_most", "accounts"])
        assert (first["id"], first["at_most"], first["accounts"]) == (number, "0.00005", ["run", "batch"])
        assert (first["until"], second["is_under_way"], second["until"]) == (None, True, None)
        assert first["since"].endswith("Z")
        for one in (number, number + 1):
            await ledger.ask(Resolve(one, "no"), timeout=1)
        assert command("held", path) == (0, f"No call is held. 1 under way in {owner_of(path)}.\n", "")
        assert command("held", path, "--json") == (0, "", "")


async def test_export_has_a_row_for_each_entry_and_its_sums_are_those_of_the_book(tmp_path: Path, command: Any) -> None:
    path = tmp_path / "run.journal"
    async with ActorSystem("bank", log=False) as system:
        ledger, _ = spawn(system, path)
        number = await spend(ledger)
        await ledger.ask(Resolve(number, "yes", Micros(20)), timeout=1)
        settled = (await ledger.ask(GetStatement(), timeout=1)).settled
        code, out, err = command("export", path)
        assert (code, err) == (0, "")
        rows = list(csv.DictReader(io.StringIO(out)))
        lines = [json.loads(line) for line in command("export", path, "--format", "jsonl")[1].splitlines()]
    paid = [row for row in rows if row["kind"] == "paid"]
    assert sum(to_micros(row["amount"]) for row in paid) == settled == Micros(125)
    assert (
        [row["entry"] for row in rows]
        == [str(one["entry"]) for one in lines]
        == [str(one) for one in range(1, len(rows) + 1)]
    )
    assert (paid[0]["amount"], paid[0]["basis"], paid[0]["input"], paid[0]["output"]) == (
        "0.000105",
        "exact",
        "10",
        "5",
    )
    assert (paid[0]["account"], paid[0]["provider"]) == ("run; batch", "alder")
    assert paid[1]["provider"] == "al[bold]der\\x1b[31m"
    kinds = [row["kind"] for row in rows]
    assert kinds[:2] == ["account opened"] * 2
    assert {"reserved", "paid", "released", "held", "tariff listed"} <= set(kinds)
    json_paid = next(one for one in lines if one["kind"] == "paid")
    assert json_paid["usage"] == {"input": 10, "output": 5}
    assert json_paid["account"] == ["run", "batch"]
    assert "Smith" not in out


async def test_no_cell_of_csv_is_a_formula(tmp_path: Path, command: Any) -> None:
    path = tmp_path / "run.journal"
    async with ActorSystem("bank", log=False) as system:
        ledger, _ = spawn(system, path, accounts={"=1+1": None})
        ledger.tell(BookCall(await reserve(ledger, "k", provider='@SUM("a",1)', accounts=("=1+1",)), "yes"))
        await ledger.ask(AwaitCommit(), timeout=1)
        out = command("export", path)[1]
    rows = list(csv.DictReader(io.StringIO(out)))
    assert {row["account"] for row in rows} == {"'=1+1"}
    assert {row["provider"] for row in rows} == {"", '\'@SUM("a",1)'}


async def test_what_a_killed_run_left_open_is_held(tmp_path: Path, command: Any) -> None:
    path, copy = tmp_path / "run.journal", tmp_path / "copy.journal"
    async with ActorSystem("bank", log=False) as system:
        ledger, _ = spawn(system, path)
        await spend(ledger)
        copy_as_killed(path, copy)
    code, shown, _ = command("held", copy)
    assert code == 0
    assert "3 calls are held, at most $0.0001. Ask the provider" in shown


@pytest.mark.parametrize("name", ["held", "export"])
def test_what_is_no_journal_is_2_in_one_line(tmp_path: Path, command: Any, name: str) -> None:
    (tmp_path / "market.toml").write_text("[[providers]]\n" * 100)
    for path, fact in (("none", "does not exist"), ("market.toml", "file is not a database")):
        code, out, err = command(name, tmp_path / path)
        assert (code, out) == (2, "")
        assert err.startswith("error: journal ")
        assert fact in err
        assert len(err.splitlines()) == 1
    assert sorted(one.name for one in tmp_path.iterdir()) == ["market.toml"]


def test_a_format_that_is_none_is_refused(tmp_path: Path, command: Any) -> None:
    assert command("export", tmp_path, "--format", "xml")[::2] == (
        2,
        "error: --format: expected one of csv, jsonl, got 'xml'\n",
    )
