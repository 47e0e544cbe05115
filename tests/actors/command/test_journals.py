"""The commands that show a journal: what they print of one in use, of one that ended, and of what is none."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import msgspec
import pytest

from actors import (
    Failed,
    FunctionTransport,
    Ledger,
    Listing,
    Market,
    Provider,
    SmartRequest,
    Supervisor,
    robust_batch,
)
from actors.batch.resuming import RUNS, KeptRun
from actors.command.app import run_app
from actors.command.export import AMOUNTS, KINDS
from actors.ledger import AlreadyPaid, BookCall, Costing, GetStatement, MarkUnderWay, MoneySettled, Resolve
from actors.ledger.entries import Entry
from actors.ledger.keys import provider_key
from actors.ledger.messages import AwaitCommit, NoteHandle
from actors.ledger.reading import reading_entries
from actors.money import Micros, to_micros
from actors.tariffs import Tariff, Usage
from runtime import ActorSystem
from runtime.persistence import owner_of, reading
from tests.actors.ledger.journalled import filled, reserve, spawn
from tests.runtime.persistence.disks import copy_as_killed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

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


def test_every_kind_of_entry_has_a_name_and_money_its_amount() -> None:
    assert set(KINDS) == set(get_args(Entry))
    assert len(set(KINDS.values())) == len(KINDS)
    with_money = {"cap", "amount", "cost", "released", "held", "needed"}
    for kind in KINDS:
        assert (kind in AMOUNTS) == bool(with_money & set(kind.__struct_fields__)), kind


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


async def test_a_call_that_can_be_taken_up_is_told_so(tmp_path: Path, command: Any) -> None:
    path = tmp_path / "run.journal"
    async with ActorSystem("bank", log=False) as system:
        ledger, _ = spawn(system, path)
        held = await reserve(ledger, "k", 50)
        ledger.tell(NoteHandle(held, "resp_17"))
        ledger.tell(BookCall(held, "held"))
        await ledger.ask(AwaitCommit(), timeout=1)
        assert "it can be taken up" in " ".join(command("held", path)[1].split())
        assert ",handle noted," in command("export", path)[1]


async def test_what_a_killed_run_left_open_is_held(tmp_path: Path, command: Any) -> None:
    path, copy = tmp_path / "run.journal", tmp_path / "copy.journal"
    async with ActorSystem("bank", log=False) as system:
        ledger, _ = spawn(system, path)
        await spend(ledger)
        copy_as_killed(path, copy)
    code, shown, _ = command("held", copy)
    assert code == 0
    assert "3 calls are held, at most $0.0001. Ask the provider" in shown


async def test_resolve_enters_an_outcome_once_and_the_money_is_free_or_spent(tmp_path: Path, command: Any) -> None:
    path = tmp_path / "run.journal"
    async with ActorSystem("bank", log=False) as system:
        ledger, _ = spawn(system, path)
        number = await spend(ledger)
        code, out, err = command("resolve", path, number, "--not-paid")
        assert (code, out) == (2, "")
        assert f"is in use by {owner_of(path)}" in err
    shown = r"'al[bold]der\x1b[31m'"
    assert command("resolve", path, number, "--paid", "0.0001") == (
        0,
        f"reservation {number} is entered as paid to {shown}, $0.0001, which is $0.00005 more than was held\n",
        "",
    )
    assert command("resolve", path, number, "--paid", "0.0001")[1].startswith(
        f"reservation {number} was entered before"
    )
    assert command("resolve", path, number + 1, "--not-paid") == (
        0,
        f"reservation {number + 1} is entered as not paid to 'alder'\n",
        "",
    )
    for arguments, fact in (
        ((number, "--paid", "0.0002"), f"reservation {number} was entered as paid to"),
        ((number, "--not-paid"), f"{path} lists what can be resolved"),
        ((999, "--not-paid"), "reservation 999 is not held, or no more; understudy held"),
        ((number,), "--paid USD or --not-paid: say which of the two"),
        ((number, "--paid", "1", "--not-paid"), "and not both"),
        ((number, "--paid", "0.0000001"), "--paid: "),
        ((number, "--paid", "-1"), "--paid: "),
        (("x", "--not-paid"), "understudy resolve --help"),
    ):
        code, out, err = command("resolve", path, *arguments)
        assert (code, out) == (2, "")
        assert fact in err
    assert "1 call is held, at most $0.00001." in command("held", path)[1]


async def shout(call: Any) -> str:
    if call.input == "bad":
        raise ValueError("THE ANSWER is bad")
    return f"the answer: {call.input}".upper()


ALDER = Listing(
    provider=Provider(name="alder", services={"uppercase"}, price="0.02"),
    transport=lambda: FunctionTransport(shout, paid=True, idempotent="no"),
)


@asynccontextmanager
async def shop(path: Path) -> AsyncGenerator[ActorRef[Any]]:
    async with ActorSystem("shop", log=False) as system:
        ledger = system.spawn(lambda: Ledger(journal=path))
        yield system.spawn(lambda: Supervisor(Market(providers=[ALDER]), ledger=ledger))


def request(text: str, **more: Any) -> SmartRequest:
    return SmartRequest(service="uppercase", input=text, timeout=5.0, **more)


async def ask(path: Path) -> list[Any]:
    """Ask under three keys, and return the answers, or what was paid for those that are not kept."""
    seen: list[Any] = []
    async with shop(path) as supervisor:
        for key, more in {"order 17": {}, "order 18": {}, "order 1": {"tenant": "acme"}}.items():
            try:
                answer = await supervisor.ask(request(key, idempotency_key=key, **more), timeout=5.0)
                seen.append(answer.output)
            except AlreadyPaid as refusal:
                seen.append(refusal.paid)
    return seen


async def run_batch(path: Path) -> list[str]:
    """Run a batch of three items, of which the last fails, and return what came of each."""
    texts = ("a", "b", "bad")
    items = [request(text, request_id=text) for text in texts]
    async with shop(path) as supervisor, robust_batch(supervisor, items, journal=path) as outcomes:
        seen = {one.item.input: one async for one in outcomes}
    return [str(seen[text].error if isinstance(seen[text], Failed) else "done") for text in texts]


def on_disk(folder: Path) -> bytes:
    return b"".join(one.read_bytes() for one in folder.iterdir())


async def test_forget_erases_answers_and_no_key_is_paid_again(tmp_path: Path, command: Any) -> None:
    path = tmp_path / "run.journal"
    answers = ["THE ANSWER: ORDER 17", "THE ANSWER: ORDER 18", "THE ANSWER: ORDER 1"]
    assert await ask(path) == answers
    assert command("forget", path, "--key", "order 17") == (
        0,
        "erased 1 answer; what was paid is still known, and no key is paid again\n",
        "",
    )
    price = to_micros("0.02")
    assert await ask(path) == [price, *answers[1:]]
    assert command("forget", path, "--key", "order 1")[1].startswith("erased 0 answers")  # That is of another scope.
    assert command("forget", path, "--scope", "tenant acme", "--key", "order 1")[1].startswith("erased 1 answer;")
    assert await ask(path) == [price, answers[1], price]
    assert command("forget", path, "--scope", "journal")[1].startswith("erased 1 answer;")
    assert await ask(path) == [price] * 3
    assert b"THE ANSWER" not in on_disk(tmp_path)
    assert sum(entry.cost for _, entry in entries_of(path) if isinstance(entry, MoneySettled)) == 3 * price


def entries_of(path: Path) -> list[tuple[int, Any]]:
    with reading_entries(path) as entries:
        return list(entries)


async def test_forget_erases_what_a_batch_has_kept(tmp_path: Path, command: Any) -> None:
    path = tmp_path / "run.journal"
    assert (await run_batch(path))[:2] == ["done", "done"]
    with reading(path) as journal:
        (head,) = journal.heads(RUNS).values()
    run_id = msgspec.msgpack.decode(head, type=KeptRun).id
    assert command("forget", path, "--scope", "account batch", "--key", f"{run_id}/a")[1].startswith(
        "erased 1 answer and 1 outcome of batch items;"
    )
    first, second, _ = await run_batch(path)
    assert "was paid already" in first
    assert second == "done"
    assert command("forget", path, "--scope", "account batch")[0] == 0
    assert b"THE ANSWER" not in on_disk(tmp_path)


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ((), "--scope or --key: say whose answers"),
        (("--scope", "acme"), '--scope: expected "tenant NAME"'),
        (("--scope", "tenant"), "got 'tenant'"),
        (("--key", "k"), "does not exist"),
    ],
)
def test_forget_refuses_what_names_nothing(tmp_path: Path, command: Any, options: Any, fact: str) -> None:
    code, out, err = command("forget", tmp_path / "none.journal", *options)
    assert (code, out) == (2, "")
    assert fact in err
    assert list(tmp_path.iterdir()) == []


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


@pytest.mark.slow
@pytest.mark.real_time
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="it has no device that is full")
def test_output_that_is_full_or_has_no_reader_is_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    filled(path, 3_000)
    command = [sys.executable, "-m", "actors.command", "export", path]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "error: standard output cannot be written: No space left on device" in done.stderr
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
