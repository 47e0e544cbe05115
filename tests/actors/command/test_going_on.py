"""A run that is kept goes on when the same command is given again; in virtual time, over real files."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from actors.command import run
from actors.command.app import run_app
from actors.command.bad_input import BadInput
from actors.command.plan import Options, Plan, check_journal
from actors.command.progress import NoProgress
from actors.command.requests_file import parse_requests
from actors.command.results_file import OutputFile
from actors.command.run import _make_run
from actors.errors.families import OutcomeUnknown, Permanent, QuotaExhausted
from actors.ledger.reading import view
from actors.market.listing import Listing
from actors.market.market import Market
from actors.money import to_micros
from actors.providers.provider import Provider
from actors.transports.function import FunctionTransport
from runtime.persistence import SqliteJournal, reading

if TYPE_CHECKING:
    from pathlib import Path

    from actors.command.report import Report
    from actors.transports.transport import ProviderCall


class World:
    """A folder with a run, and a provider that counts what it is asked for, over any number of commands."""

    def __init__(self, folder: Path, *, price: str = "0.01") -> None:
        self.out = folder / "results.jsonl"
        self.journal = folder / "results.jsonl.journal"
        self.price = to_micros(price)
        self.calls = Counter[str]()
        self.failing: dict[str, Exception] = {}
        self.report: Report

    async def serve(self, call: ProviderCall) -> str:
        self.calls[call.input] += 1
        await asyncio.sleep(1.0)
        if (error := self.failing.get(call.input)) is not None:
            raise error
        return call.input.upper()

    async def run(
        self, *inputs: str | dict[str, Any], overwrite: bool = False, market: str = "", **options: Any
    ) -> int:
        """Run the command for these inputs, each with itself as its id; return the exit code."""
        lines = [one if isinstance(one, dict) else {"id": one, "input": one} for one in inputs]
        content = "".join(json.dumps({"service": "uppercase"} | line) + "\n" for line in lines)
        provider = Provider(name="alder", services={"uppercase"}, price=self.price)
        transport = lambda: FunctionTransport(self.serve, paid=self.price > 0, idempotent="no")  # noqa: E731
        plan = Plan(
            market=Market(providers=[Listing(provider=provider, transport=transport)]),
            requests=tuple(parse_requests(content.encode())),
            options=Options(**{"seed": 1, "journal": str(self.journal)} | options),
            market_digest=market,
        )
        file = OutputFile("--out", str(self.out), overwrite=overwrite, goes_on=self.journal.exists())
        with file:
            code, self.report = await _make_run(plan, file, NoProgress())
        return code

    @property
    def lines(self) -> list[dict[str, Any]]:
        content = self.out.read_text()
        assert not content or content.endswith("\n")
        return [json.loads(line) for line in content.splitlines()]

    @property
    def statuses(self) -> dict[str, str]:
        assert len({line["key"] for line in self.lines}) == len(self.lines)
        return {str(line["id"]): line["status"] for line in self.lines}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_the_same_command_again_pays_for_nothing_twice(world):
    assert await world.run("a", "b", budget="0.02") == 0
    first = world.out.read_bytes()
    assert await world.run("a", "b", budget="0.02") == 0
    assert world.out.read_bytes() == first
    assert world.calls == {"a": 1, "b": 1}
    assert (world.report.done, world.report.before, world.report.spent, world.report.calls) == (2, 2, "0.02", 0)


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda text: text[: len(text) // 2], id="torn"),
        pytest.param(lambda _: b"", id="emptied"),
        pytest.param(lambda text: text + text, id="doubled"),
        pytest.param(lambda text: text.partition(b"\n")[2], id="a line less"),
    ],
)
async def test_the_output_is_made_whole_from_the_journal(world, harm):
    await world.run("a", "b", {"id": 7, "input": "c"})
    lines = sorted(map(str, world.lines))
    world.out.write_bytes(harm(world.out.read_bytes()))
    assert await world.run("a", "b", {"id": 7, "input": "c"}) == 0
    assert sorted(map(str, world.lines)) == lines
    assert world.calls.total() == 3


async def test_what_was_free_is_made_whole_too(tmp_path):
    world = World(tmp_path, price="0")
    await world.run("a", "b")
    world.out.unlink()
    assert await world.run("a", "b") == 0
    assert sorted(line["output"] for line in world.lines) == ["A", "B"]
    assert world.calls.total() == 2


async def test_the_budget_carries_on_and_more_of_it_answers_more(world):
    items = [f"item {number}" for number in range(10)]
    assert await world.run(*items, budget="0.04", max_concurrency=1) == 3
    assert Counter(world.statuses.values()) == {"done": 4, "budget": 6}
    assert (world.report.budget, world.report.failed) == (6, 0)
    assert await world.run(*items, budget="0.04", max_concurrency=1) == 3
    assert (world.calls.total(), len(world.lines)) == (4, 10)
    assert await world.run(*items, budget="0.10", max_concurrency=1) == 0
    assert world.statuses == dict.fromkeys(items, "done")
    assert (world.calls.total(), world.report.spent) == (10, "0.10")


async def test_what_has_failed_stays_so_unless_it_is_to_be_tried_again(world):
    world.failing["b"] = Permanent("no such thing")
    assert await world.run("a", "b") == 1
    before = world.lines
    world.failing.clear()
    assert await world.run("a", "b") == 1
    assert world.lines == before
    assert await world.run("a", "b", retry_failed=True) == 0
    assert world.statuses == {"a": "done", "b": "done"}
    assert world.calls == {"a": 1, "b": 2}


async def test_what_may_have_been_paid_is_paid_again_only_if_that_is_said(world):
    world.failing["b"] = OutcomeUnknown("the connection broke")
    assert await world.run("a", "b") == 1
    world.failing.clear()
    assert await world.run("a", "b") == 1
    assert world.statuses == {"a": "done", "b": "unknown"}
    assert (world.calls["b"], world.report.in_doubt) == (1, "0.01")
    assert await world.run("a", "b", retry_unknown=True) == 0
    assert world.statuses == {"a": "done", "b": "done"}
    assert world.calls["b"] == 2


async def test_what_was_found_out_to_be_paid_is_told_as_paid_without_an_answer(world, capfd):
    world.failing["b"] = OutcomeUnknown("the connection broke")
    assert await world.run("a", "b") == 1
    with reading(world.journal) as store:
        (held,) = view(store, owner=None).held
    told = (
        f"once the run has ended, enter what became of it: understudy resolve {world.journal} {held.reservation} --paid"
    )
    for _ in range(2):
        assert told in next(line["error"] for line in world.lines if line["id"] == "b")
        assert await world.run("a", "b") == 1
    assert run_app(["resolve", str(world.journal), str(held.reservation), "--paid", "0.01"]) == 0
    for _ in range(2):
        assert await world.run("a", "b", retry_failed=True) == 1
        assert world.statuses == {"a": "done", "b": "paid"}
        line = next(line for line in world.lines if line["id"] == "b")
        assert (line["cost"], line["provider"], line["output"]) == ("0.01", "alder", None)
        assert line["error"].startswith("AlreadyPaid: key ")
        assert (world.report.done, world.report.paid, world.report.failed, world.report.spent) == (1, 1, 0, "0.02")
        assert (world.report.unknown, world.report.unfinished) == (0, 0)
    capfd.readouterr()
    assert run_app(["status", str(world.journal)]) == 0
    assert "1 done, 0 failed, 0 unknown, 1 paid without an answer that could be had, 0 left" in capfd.readouterr().out
    assert world.calls == {"a": 1, "b": 1}
    world.failing.clear()
    assert await world.run("a", "b", retry_unknown=True) == 0
    assert world.statuses == {"a": "done", "b": "done"}
    assert (world.calls["b"], world.report.spent) == (2, "0.03")


async def test_a_line_that_is_missing_of_an_answer_that_was_erased_is_told_as_paid(world):
    assert await world.run("a", "b") == 0
    world.out.unlink()
    assert run_app(["forget", str(world.journal), "--scope", "account batch"]) == 0
    assert await world.run("a", "b") == 1
    assert world.statuses == {"a": "paid", "b": "paid"}
    assert (world.report.paid, world.report.before, world.report.done) == (2, 2, 0)
    assert world.calls == {"a": 1, "b": 1}


async def test_changed_requests_are_named_and_nothing_is_called(world):
    await world.run("a", "b", "c")
    before = world.out.read_bytes()
    changed = ("a", {"id": "b", "input": "other"}, "d")
    listed = r"1 request was added \(d\); 1 request was removed \(c\); 1 request was changed \(b\). .*--accept-changes"
    with pytest.raises(BadInput, match=listed):
        await world.run(*changed)
    with pytest.raises(BadInput, match="the market file is another one"):
        await world.run("a", "b", "c", market="another")
    assert world.out.read_bytes() == before
    assert await world.run(*changed, accept_changes=True) == 0
    assert {line["id"]: line["output"] for line in world.lines} == {"a": "A", "b": "OTHER", "d": "D"}
    assert world.calls == {"a": 1, "b": 1, "c": 1, "other": 1, "d": 1}
    assert await world.run(*changed) == 0
    assert await world.run("a", "b", "c", accept_changes=True) == 0  # What it was before is another change.
    assert {line["id"]: line["output"] for line in world.lines} == {"a": "A", "b": "B", "c": "C"}
    assert world.calls == {"a": 1, "b": 2, "c": 1, "other": 1, "d": 1}


async def test_lines_without_an_id_are_known_by_what_they_ask_for(world):
    lines = [{"input": one} for one in ("a", "b", "a")]
    assert await world.run(*lines) == 0
    assert world.calls == {"a": 2, "b": 1}
    assert [line["id"] for line in world.lines] == [None] * 3
    assert await world.run({"input": "new"}, *lines, accept_changes=True) == 0
    assert world.calls == {"new": 1, "a": 2, "b": 1}


async def test_a_file_of_something_else_is_left_alone_unless_it_is_to_be_replaced(world):
    await world.run("a")
    world.out.write_text('{"precious": true}\n')
    with pytest.raises(BadInput, match="has 1 lines that are not of the run in"):
        await world.run("a")
    assert world.out.read_text() == '{"precious": true}\n'
    assert await world.run("a", overwrite=True) == 0
    assert world.statuses == {"a": "done"}
    assert world.calls == {"a": 1}


async def test_a_fresh_run_pays_again_if_it_is_said_twice(world):
    await world.run("a", budget="0.01")
    with pytest.raises(BadInput, match=r"\$0.01 was spent in the run"):
        await world.run("a", budget="0.01", fresh=1)
    assert await world.run("a", budget="0.01", fresh=2) == 0
    assert (world.calls["a"], len(world.lines), world.report.spent) == (2, 1, "0.01")
    assert await world.run("a", budget="0.01") == 0
    assert world.calls["a"] == 2


async def test_nothing_goes_on_without_a_journal(tmp_path):
    world = World(tmp_path)
    with pytest.raises(BadInput, match="--retry-failed: this run is kept nowhere; add --journal FILE"):
        await world.run("a", journal=None, retry_failed=True)
    assert await world.run("a", journal=None) == 0
    assert not world.journal.exists()


async def test_what_meets_a_reset_waits_for_it_and_its_line_comes_then(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "WATCH_INTERVAL", 600.0)  # A day has 172,800 of the usual ones.
    world = World(tmp_path)
    day = 86_400.0

    async def serve(call: ProviderCall) -> str:
        now = asyncio.get_running_loop().time()
        world.calls[call.input] += 1
        if now < day and world.calls.total() > 1:
            raise QuotaExhausted("1 a day", provider="alder", retry_after=day - now)
        return call.input.upper()

    world.serve = serve  # type: ignore[method-assign]
    assert await world.run("a", "b", "c", park=True, timeout=20.0) == 0
    assert world.statuses == {"a": "done", "b": "done", "c": "done"}
    assert day < asyncio.get_running_loop().time() < day + 120.0
    assert await world.run("a", "b", "c", park=True, timeout=20.0) == 0
    assert world.calls.total() <= 5


async def test_what_is_parked_is_listed_and_cancelled_by_command(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(run, "WATCH_INTERVAL", 600.0)
    world = World(tmp_path)
    day = 86_400.0

    async def serve(call: ProviderCall) -> str:
        world.calls[call.input] += 1
        raise QuotaExhausted("1 a day", provider="alder", retry_after=day)

    def command(*arguments: str) -> tuple[int, str, str]:
        code = run_app(["parked", str(world.journal), *arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    answer, world.serve = world.serve, serve  # type: ignore[method-assign]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60.0):
            await world.run("a", "b", "c", park=True, timeout=20.0)
    capfd.readouterr()
    told = [json.loads(line) for line in command("--json")[1].splitlines()]
    keys = [one["key"] for one in told]
    assert sorted(key.partition("/")[2] for key in keys) == ["a", "b", "c"]
    assert {(one["account"], "QuotaExhausted: 1 a day" in one["why"]) for one in told} <= {
        ("batch", True),
        ("batch", False),
    }
    assert all(one["since"] < one["until"] for one in told)
    assert "3 items are parked. Its run goes on" in command()[1]
    code, _, err = command("--cancel", "x")
    assert (code, "no item is parked under the key 'x'" in err) == (2, True)
    owner = SqliteJournal(world.journal)
    assert (command("--cancel-all")[0], len(command("--json")[1].splitlines())) == (2, 3)
    owner.close()
    a, b = (next(key for key in keys if key.endswith(f"/{name}")) for name in "ab")
    assert command("--cancel", a, "--cancel", a)[:2] == (
        0,
        "1 item is cancelled, and never ran; --retry-failed asks for them again\n",
    )
    assert command("--cancel", a)[0] == 2
    world.serve = answer  # type: ignore[method-assign]
    assert await world.run("a", "b", "c") == 1  # Without --park nothing waits.
    assert world.statuses == {"a": "failed", "b": "done", "c": "done"}
    failed = next(line for line in world.lines if line["id"] == "a")
    assert failed["error"] == "NotAdmitted: it was parked until a reset, and was cancelled; it never ran"
    assert (failed["cost"], failed["key"], world.report.failed) == ("0.00", a, 1)
    assert command("--cancel", b)[0] == 2
    assert command() == (0, "No item is parked.\n", "")
    assert await world.run("a", "b", "c", retry_failed=True) == 0
    assert world.report.spent == "0.03"


def test_what_is_parked_needs_a_journal():
    with pytest.raises(BadInput, match="--park: this run is kept nowhere; add --journal FILE"):
        Options(park=True)


async def test_a_run_stops_if_nothing_can_be_kept_and_goes_on_when_it_can(world, monkeypatch):
    await world.run("a")
    with monkeypatch.context() as patch:
        patch.setattr(SqliteJournal, "free_bytes", lambda _: 0)
        assert await world.run("a", "b", "c", accept_changes=True) == 1
    assert (world.report.ending, world.report.done, world.report.unfinished) == ("failed", 1, 2)
    assert world.calls == {"a": 1}
    assert await world.run("a", "b", "c") == 0
    assert world.calls == {"a": 1, "b": 1, "c": 1}


async def test_a_results_file_and_a_journal_have_one_owner(world):
    await world.run("a")
    with (
        OutputFile("--out", str(world.out), goes_on=True),
        pytest.raises(BadInput, match="by another run; wait for it"),
    ):
        OutputFile("--out", str(world.out), goes_on=True)
    journal = SqliteJournal(world.journal)
    with pytest.raises(BadInput, match="is in use by process"):
        check_journal(str(world.journal))
    with pytest.raises(BadInput, match="is in use by process"):
        await world.run("a")
    journal.close()
    assert check_journal(str(world.journal))
    assert not check_journal(str(world.journal.with_name("none")))
    world.journal.write_text("something else")
    with pytest.raises(BadInput, match="is not a database"):
        check_journal(str(world.journal))
