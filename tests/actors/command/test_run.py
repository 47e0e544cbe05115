"""A run in virtual time: lines, money, interruption; with functions for providers."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from actors.command.bad_input import BadInput
from actors.command.interrupts import Interrupts
from actors.command.plan import Options, Plan, tracing_of
from actors.command.progress import NoProgress
from actors.command.report import RunTally
from actors.command.requests_file import RequestLine
from actors.command.results_file import OutputFile
from actors.command.run import BatchRun, _serve, until
from actors.errors.families import Permanent
from actors.market.listing import Listing
from actors.market.market import Market
from actors.money import to_micros
from actors.providers.provider import Provider, ProviderFilter
from actors.transports.function import FunctionTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from actors.transports.transport import ProviderCall


async def shout(call: ProviderCall) -> str:
    await asyncio.sleep(1.0)
    return call.input.upper()


def listing(name: str, price: str, function: Callable[[ProviderCall], Awaitable[Any]] = shout) -> Listing:
    return Listing(
        provider=Provider(name=name, services={"uppercase"}, price=to_micros(price)),
        transport=lambda: FunctionTransport(function, paid=to_micros(price) > 0, idempotent="key"),
    )


def requests(count: int, **fields: Any) -> tuple[RequestLine, ...]:
    return tuple(RequestLine(id=number, service="uppercase", input=f"t{number}", **fields) for number in range(count))


class Made:
    """A run that was made, and what it wrote."""

    def __init__(self, folder: Path, listings: list[Listing], lines: tuple[RequestLine, ...], **options: Any) -> None:
        self.path = folder / "results.jsonl"
        market = Market(providers=listings)
        prices = {one.provider.name: one.provider.price for one in listings}
        self.tally = RunTally(requests=len(lines), prices=prices, started=0.0)
        self.interrupts = Interrupts()
        plan = Plan(market=market, requests=lines, options=Options(seed=1, **options))
        self.run = BatchRun(plan, OutputFile("--out", str(self.path)), self.tally, self.interrupts)
        self.run.results.begin()

    async def serve(self) -> None:
        try:
            await _serve(self.run, NoProgress())
            await self.run.write_cut_off()
        finally:
            self.run.results.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]


async def test_every_request_has_its_line_as_it_ends(tmp_path):
    made = Made(tmp_path, [listing("alder", "0.001")], requests(25), max_concurrency=5)
    await made.serve()
    assert sorted(line["id"] for line in made.lines) == list(range(25))
    assert {line["status"] for line in made.lines} == {"done"}
    assert all(line["output"] == f"T{line['id']}" for line in made.lines)
    assert made.run.exit_code() == 0
    report = made.tally.report(now=5.0, ending="finished", budget_exhausted=False)
    assert (report.calls, report.spent, report.unfinished) == (25, "0.025", 0)
    assert asyncio.get_running_loop().time() == pytest.approx(5.0)


async def test_the_requests_of_a_run_are_traced_if_that_is_wanted(tmp_path):
    pytest.importorskip("opentelemetry.sdk.trace")
    from tests.actors.tracing.stage import Traced  # noqa: PLC0415 - it needs an extra.

    traced = Traced()
    made = Made(tmp_path, [listing("alder", "0.001")], requests(3))
    made.run.plan = msgspec.structs.replace(made.run.plan, tracing=traced.tracing)
    await made.serve()
    found = traced.named("request uppercase")
    assert len(found) == 3
    assert len({span.attributes["understudy.request_id"] for span in found}) == 3
    assert {span.attributes["understudy.outcome"] for span in found} == {"done"}
    assert sum(span.attributes["understudy.cost"] for span in found) == 3_000


def test_a_share_of_traces_that_is_none_is_bad_input():
    with pytest.raises(BadInput, match="--traces: sample must be a share"):
        tracing_of(2.0)
    assert tracing_of(None) is None


async def test_requests_are_begun_at_the_rate_limit(tmp_path):
    made = Made(tmp_path, [listing("alder", "0.001")], requests(11), max_concurrency=100, rate_limit=2.0)
    await made.serve()
    assert asyncio.get_running_loop().time() == pytest.approx(6.0)


async def test_what_no_provider_offers_fails_alone(tmp_path):
    lines = (*requests(2), RequestLine(id="odd", service="poetry", input=1))
    made = Made(tmp_path, [listing("alder", "0.001")], lines)
    await made.serve()
    assert {line["id"]: line["status"] for line in made.lines} == {0: "done", 1: "done", "odd": "failed"}
    assert made.lines[0]["error"].startswith("NoProvider: ")
    assert made.run.exit_code() == 1


async def test_the_fields_of_a_line_reach_the_providers(tmp_path):
    seen: list[ProviderCall] = []

    async def record(call: ProviderCall) -> str:
        seen.append(call)
        raise Permanent("enough", provider="alder")

    lines = (
        RequestLine(id=1, service="uppercase", input={"a": 1}, timeout=0.5, budget="0.001"),
        RequestLine(id=2, service="uppercase", input="x", where=ProviderFilter(max_price="0.0001")),
        RequestLine(id=3, service="uppercase", input="x", budget="0.0001"),
    )
    made = Made(tmp_path, [listing("alder", "0.001", record)], lines)
    await made.serve()
    assert [(call.input, call.timeout) for call in seen] == [({"a": 1}, 0.5)]
    errors = {line["id"]: line["error"].partition(":")[0] for line in made.lines}
    assert errors == {1: "Permanent", 2: "NoProvider", 3: "BudgetExceeded"}
    # A request that its own budget does not allow says nothing about the run's.
    assert made.run.exit_code() == 1


async def test_when_the_budget_is_used_up_the_rest_is_written_off_at_once(tmp_path):
    made = Made(tmp_path, [listing("alder", "0.01")], requests(200), budget="0.05", rate_limit=1.0, max_concurrency=2)
    await made.serve()
    assert [line["status"] for line in made.lines].count("done") == 5
    failed = [line for line in made.lines if line["status"] == "budget"]
    assert len(failed) == 195
    assert {line["error"].partition(":")[0] for line in failed} == {"BudgetExceeded"}
    assert made.run.exit_code() == 3
    assert made.tally.spent == 50_000
    # Not the 200 seconds that the rate limit would ask for.
    assert asyncio.get_running_loop().time() < 20


async def test_what_costs_less_than_the_budget_refused_is_still_asked(tmp_path):
    dear, cheap = listing("dear", "0.01"), listing("cheap", "0.001")
    cheap = msgspec.structs.replace(
        cheap, provider=Provider(name="cheap", services={"word-count"}, price=cheap.provider.price)
    )
    lines = (*requests(4), *(RequestLine(id=f"c{n}", service="word-count", input="x") for n in range(3)))
    made = Made(tmp_path, [dear, cheap], lines, budget="0.025", max_concurrency=1)
    await made.serve()
    done = {line["id"] for line in made.lines if line["status"] == "done"}
    assert done == {0, 1, "c0", "c1", "c2"}
    assert made.run.exit_code() == 3


async def test_an_interrupted_run_keeps_what_ended_and_tells_what_may_be_paid(tmp_path):
    made = Made(tmp_path, [listing("alder", "0.001")], requests(100), max_concurrency=10)
    serving = asyncio.create_task(_serve(made.run, NoProgress()))
    await asyncio.sleep(2.5)
    made.interrupts.signal = 2
    made.interrupts.stop.set()
    await serving
    await made.run.write_cut_off()
    assert asyncio.get_running_loop().time() == pytest.approx(2.5)
    by_status = [line["status"] for line in made.lines]
    assert (by_status.count("done"), by_status.count("unknown"), len(by_status)) == (20, 10, 30)
    unknown = made.lines[-1]
    assert unknown["provider"] == "alder"
    assert unknown["error"].startswith("Interrupted: ")
    report = made.tally.report(now=2.5, ending="interrupted", budget_exhausted=False)
    assert (report.spent, report.in_doubt, report.unfinished) == ("0.02", "0.01", 70)
    assert made.run.exit_code() == 130


async def test_an_interrupted_request_that_cost_nothing_has_no_line(tmp_path):
    made = Made(tmp_path, [listing("free", "0")], requests(100), max_concurrency=10)
    serving = asyncio.create_task(_serve(made.run, NoProgress()))
    await asyncio.sleep(1.5)
    made.interrupts.stop.set()
    await serving
    await made.run.write_cut_off()
    assert len(made.lines) == 10


async def test_outcomes_that_are_there_when_the_run_is_stopped_are_kept():
    stop = asyncio.Event()
    ready = [1, 2, 3]

    class Outcomes:
        def __aiter__(self) -> AsyncIterator[int]:
            return self

        async def __anext__(self) -> int:
            if not ready:
                await asyncio.Event().wait()
            stop.set()
            return ready.pop(0)

    async with until(stop, Outcomes()) as outcomes:
        assert [outcome async for outcome in outcomes] == [1, 2, 3]
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_concurrency": 0}, "--max-concurrency: expected a number from 1 to 10000, got 0"),
        ({"max_concurrency": 10_001}, "--max-concurrency: expected a number from 1 to 10000"),
        ({"rate_limit": 0.0}, "--rate-limit: expected a finite number of requests a second above 0, got 0"),
        ({"rate_limit": float("inf")}, "--rate-limit: .* got inf"),
        ({"timeout": -1.0}, "--timeout: expected a finite number of seconds above 0, got -1"),
        ({"timeout": float("nan")}, "--timeout: .* got nan"),
        ({"strategy": "luck"}, "--strategy: expected one of best, cheapest, fastest, balanced, got 'luck'"),
        ({"budget": "-1"}, "--budget: amount '-1' is negative"),
        ({"budget": "0.1234567"}, "--budget: amount '0.1234567' has more than 6 decimals"),
        ({"budget": "much"}, "--budget: amount 'much' is not a decimal number"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(options, message):
    with pytest.raises(BadInput, match=message):
        Options(**options)
