"""What a run would meet, told without a call: every bad line, what no provider serves, what it costs, how long."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from actors import FunctionTransport, Listing, Market, Provider, ProviderFilter
from actors.batch.resuming import REQUESTS, RUNS, ItemKeys, KeptItem, KeptRun, items_scope
from actors.command.app import run_app
from actors.command.forecast import Forecast, forecast
from actors.command.going_on import wanted_requests
from actors.command.plan import digest_of_market
from actors.command.requests_file import RequestLine, parse_line
from actors.ledger.entries import AccountOpened, MoneyReserved, MoneySettled
from actors.ledger.journal import MoneyJournal
from actors.limits import per_minute
from actors.market import SharedQuota
from actors.money import Micros, to_micros
from actors.tariffs import Tariff
from runtime.persistence import owner_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


async def never(call: object) -> None:
    raise AssertionError(call)


def listing(name: str, price: str = "0", *, services: tuple[str, ...] = ("read",), **terms: Any) -> Listing:
    about = {one: terms.pop(one) for one in ("reputation", "response_time", "window") if one in terms}
    provider = Provider(name=name, services=set(services), price=price, **{"response_time": 0.0} | about)
    return Listing(provider=provider, transport=lambda: FunctionTransport(never, paid=True, idempotent="no"), **terms)


def line(content: Any = "x", **fields: Any) -> RequestLine:
    return RequestLine(**{"id": 1, "service": "read", "input": content} | fields)


def seen(*listings: Listing, lines: list[RequestLine], quotas: dict[str, Any] | None = None, **more: Any) -> Forecast:
    return forecast(Market(providers=listings, quotas=quotas or {}), list(enumerate(lines, 1)), **more)


def test_it_costs_from_the_cheapest_presumably_to_the_dearest_at_most() -> None:
    tariff = Tariff(input="1", output="10")  # Dollars for a million tokens.
    asked = {"messages": [{"role": "user", "content": "word " * 400}], "max_tokens": 100}
    fixed, by_token = listing("alder", "0.05"), listing("birch", tariff=tariff)
    both = seen(fixed, by_token, lines=[line(asked), line("no model's input")])
    alone = seen(by_token, lines=[line(asked)])
    assert both.unserved == ()
    # 500 tokens presumably of 2,000 bytes, and 100 at most of output.
    assert Micros(500) < alone.likely < Micros(1_600)
    assert alone.likely < alone.most
    assert alone.most >= Micros(2_000 + 1_000)
    assert alone.likely < both.likely <= alone.likely + to_micros("0.05")
    assert both.most == 2 * to_micros("0.05")


def test_what_no_provider_takes_is_told_with_each_reason() -> None:
    long = {"messages": [{"role": "user", "content": "word " * 10_000}]}
    listings = (
        listing("alder", "0.05"),
        listing("birch", "0.01", window=2_000),
        listing("cedar", "0.001", reputation=10),
    )
    asked = [
        line(long, where=ProviderFilter(max_price="0.02", min_reputation=50)),
        line("short", budget="0.02"),
        line("short", budget="0.0001"),
        line("short", service="write"),
        line("short", service="write"),
    ]
    told = seen(*listings, lines=asked)
    assert told.unoffered == {"write": [4, 5]}
    assert [one.number for one in told.unserved] == [1, 3]
    assert told.unserved[0].whys == {
        "alder": "over max_price $0.02",
        "birch": "its window is 2,000 tokens, and the input has 8,335 at least",
        "cedar": "below min_reputation 50",
    }
    assert told.unserved[1].whys["cedar"] == "it may cost $0.001, over the budget of $0.0001"
    assert (told.likely, told.most) == (to_micros("0.001"), to_micros("0.01"))


@pytest.mark.parametrize(
    ("terms", "options", "seconds", "limit"),
    [
        ({"rate_limit": 10.0, "headroom": 0.5}, {}, 20.0, "5 a second at the providers of 'read'"),
        ({"rate_limit": 10.0, "headroom": 1.0}, {"rate_limit": 2.0}, 49.5, "--rate-limit 2"),
        ({"response_time": 2.0}, {"max_concurrency": 4}, 50.0, "--max-concurrency 4"),
        ({"response_time": 2.0, "max_concurrency": 1}, {}, 200.0, "0.5 a second at the providers of 'read'"),
        ({"limits": (per_minute("tokens", 6_000),), "headroom": 1.0}, {}, None, "a second at the providers of 'read'"),
        ({}, {}, 0.0, ""),
    ],
)
def test_it_lasts_as_long_as_the_tightest_limit_makes_it(
    terms: dict[str, Any], options: dict[str, Any], seconds: float | None, limit: str
) -> None:
    body = {"messages": [{"role": "user", "content": "word " * 40}], "max_tokens": 100}
    paces = seen(listing("alder", **terms), lines=[line(body)] * 100, **options).paces
    if not limit:
        assert paces == ()
        return
    assert limit in paces[0].limit
    if seconds is not None:
        assert paces[0].seconds == pytest.approx(seconds)
    else:
        assert 50 < paces[0].seconds < 500


def test_providers_share_the_requests_of_a_service_and_a_quota_bounds_those_that_draw_on_it() -> None:
    two = [listing(name, rate_limit=10.0, headroom=1.0) for name in ("alder", "birch")]
    assert seen(*two, lines=[line()] * 100).paces[0].seconds == pytest.approx(5.0)
    shared = [listing(name, quota="one", headroom=1.0) for name in ("alder", "birch")]
    quotas = {"one": SharedQuota(rate_limit=10.0, headroom=1.0)}
    assert seen(*shared, lines=[line()] * 100, quotas=quotas).paces[0].seconds == pytest.approx(10.0)


MARKET = """
budget = "0.0001"
[[providers]]
name = "alder"
services = ["uppercase", "read"]
price = "0.001"
url = "http://127.0.0.1:9/"
"""
LINES = [
    '{"id": 1, "service": "uppercase", "input": "a"}',
    "{oops",
    "",
    '{"id": 1, "service": "uppercase", "input": "b"}',
    '{"id": 3, "service": "uppercase", "input": "b", "budget": 0.01}',
    '{"id": 4, "service": "upercase", "input": "b"}',
    '{"id": 5, "service": "poetry\\u001b[31m", "input": "b"}',
    '{"id": 6, "service": "read", "input": "b", "where": {"max_price": "0.0001"}}',
]


@pytest.fixture
def check(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    (tmp_path / "market.toml").write_text(MARKET)

    def run(lines: list[str], *options: str) -> tuple[int, str, str]:
        (tmp_path / "requests.jsonl").write_text("".join(f"{one}\n" for one in lines))
        files = sorted(one.name for one in tmp_path.iterdir())
        code = run_app(["check", str(tmp_path / "market.toml"), str(tmp_path / "requests.jsonl"), *options])
        assert sorted(one.name for one in tmp_path.iterdir()) == files
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


def test_every_problem_is_told_at_once(check: Any) -> None:
    code, out, err = check(LINES)
    assert (code, err) == (2, "")
    problems = out.split("\n\n")[0].splitlines()
    assert [one.partition(":")[0] for one in problems] == [f"line {number}" for number in (2, 4, 5, 6, 7, 8)]
    for fact in (
        "expected a JSON object",
        "id: expected an id of its own, got 1, the id of line 1",
        "budget: expected a string of dollars",
        "no provider offers 'upercase'; did you mean 'uppercase'?",
        "no provider offers 'poetry\\x1b[31m'",
        "line 8: no provider of 'read' can be called: alder: over max_price $0.0001",
    ):
        assert fact in out
    assert "requests  4 " in out
    assert "; 6 problems" in out


def test_a_run_that_can_be_served_is_0_with_its_cost_and_whether_the_budgets_are_enough(check: Any) -> None:
    lines = [json.dumps({"id": number, "service": "uppercase", "input": "a"}) for number in range(50)]
    code, out, err = check(lines, "--budget", "0.05", "--rate-limit", "10")
    assert (code, err) == (0, "")
    assert "requests  50 (uppercase 50); 0 problems" in out
    assert "cost      from $0.05 to $0.05" in out
    assert "budget    $0.05 of --budget is enough" in out
    assert "budget    $0.0001 of the market is not enough" in out
    assert "time      at least 5 s, by " in out
    assert "budget    $0.01/day of --budget is not enough" in check(lines, "--budget", "0.01/day")[1]


@pytest.mark.parametrize(
    ("lines", "options", "fact"),
    [([], [], "expected at least one request"), (LINES, ["--budget", "x"], "--budget: ")],
)
def test_bad_input_is_2_in_one_line(check: Any, lines: list[str], options: list[str], fact: str) -> None:
    code, out, err = check(lines, *options)
    assert (code, out) == (2, "")
    assert fact in err
    assert len(err.splitlines()) == 1


@pytest.fixture
def begun(tmp_path: Path) -> Callable[..., str]:
    """Return a function that keeps a run of some lines in OUT.journal, in which items have ended so; it is its path."""

    def keep(lines: list[str], statuses: dict[int, str]) -> str:
        path = tmp_path / "results.jsonl.journal"
        journal = MoneyJournal(path)
        list(journal.read())
        keys = ItemKeys("a1")
        _, digests = wanted_requests([parse_line(one.encode()) for one in lines], keys)
        market = digest_of_market(str(tmp_path / "market.toml"))
        run = KeptRun(id="a1", account="batch", began=1.0, requests=len(lines), market=market)
        put = journal.store.put
        put(RUNS, "batch", msgspec.msgpack.encode(run), at=None)
        put(f"{REQUESTS}batch", "0", msgspec.msgpack.encode(list(digests.items())), at=None)
        for number, status in statuses.items():
            item = msgspec.msgpack.encode(KeptItem(status))  # type: ignore[arg-type]
            put(items_scope("batch"), keys.key(number), item, at=1.0)
        journal.append(AccountOpened(account="batch", cap=None, at=1.0))
        reserved = MoneyReserved(
            reservation=1, key="k", provider="alder", accounts=("batch",), amount=Micros(3_000), at=1.0
        )
        journal.append(reserved)
        journal.append(
            MoneySettled(reservation=1, key="k", provider="alder", accounts=("batch",), cost=Micros(3_000), at=1.0)
        )
        journal.commit()
        journal.close()
        return str(tmp_path / "results.jsonl")

    return keep


def lines_of(count: int) -> list[str]:
    return [json.dumps({"id": number, "service": "uppercase", "input": "a"}) for number in range(count)]


def test_what_resuming_would_do_is_told_and_counts(check: Any, begun: Any) -> None:
    check(lines_of(10))
    out = begun(lines_of(10), {0: "done", 1: "done", 2: "failed", 3: "unknown", 4: "budget", 5: "again"})
    code, told, err = check(lines_of(10), "--out", out, "--budget", "0.01")
    assert (code, err) == (0, "")
    assert (
        "resuming  2 were answered, 1 have failed; 7 are asked for (1 of them may have been paid); $0.003 was spent\n"
        in told
    )
    assert "cost      from $0.007 to $0.007" in told
    assert "budget    $0.01 of --budget is enough" in told
    assert "budget    $0.01 of --budget is enough" not in check(lines_of(10), "--out", out, "--budget", "0.009")[1]
    assert "resuming" not in check(lines_of(10))[1]


def test_what_would_be_refused_is_a_problem(check: Any, begun: Any, tmp_path: Path) -> None:
    check(lines_of(4))
    out = begun(lines_of(4), {0: "done", 1: "done"})
    lines = [lines_of(1)[0].replace('"a"', '"b"'), *lines_of(4)[2:], lines_of(5)[-1]]
    (tmp_path / "market.toml").write_text(MARKET + "# changed")
    journal = MoneyJournal(f"{out}.journal")
    code, told, err = check(lines, "--out", out)
    assert (code, err) == (2, "")
    for fact in (
        f"the journal is in use by {owner_of(f'{out}.journal')}",
        "1 request was added (4); it needs --accept-changes",
        "1 request was removed (1); it needs --accept-changes",
        "1 request was changed (0); it needs --accept-changes",
        "the market file was changed; it needs --accept-changes",
        "resuming  nothing is over; 4 are asked for",
    ):
        assert fact in told
    journal.close()


def test_nothing_left_to_ask_for_costs_nothing_whatever_was_spent(check: Any, begun: Any) -> None:
    check(lines_of(1))
    out = begun(lines_of(1), {0: "done"})
    told = check(lines_of(1), "--out", out, "--budget", "0.001")[1]
    assert "resuming  1 were answered; 0 are asked for; $0.003 was spent" in told
    assert "budget    $0.001 of --budget is enough" in told
