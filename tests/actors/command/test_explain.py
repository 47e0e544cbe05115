"""`understudy explain` tells the way of one request by its journal: of an item, and of a request outside of a batch."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from actors import (
    FunctionTransport,
    Ledger,
    Listing,
    Market,
    Provider,
    Retry,
    SmartRequest,
    Supervisor,
    Transient,
    robust_batch,
)
from actors.command.app import run_app
from runtime import ActorSystem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOSTILE = "down [bold]now[/bold]\x1b[31m\nINFO all is well"


@pytest.fixture
def explain(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = run_app(["explain", *map(str, arguments)])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


async def live(path: Path) -> None:
    """Have two items answered by the second provider, after the first has failed; then a request outside of a batch."""

    async def fails(_: Any) -> Any:
        await asyncio.sleep(0.2)
        raise Transient(HOSTILE, outcome="not_started")

    async def answers(call: Any) -> Any:
        await asyncio.sleep(0.1)
        return call.input

    market = Market(
        providers=[
            Listing(
                provider=Provider(name=name, services={"s"}, price=price),
                transport=lambda serve=serve: FunctionTransport(serve, paid=True, idempotent="no"),
            )
            for name, price, serve in (("alder", "0.01", fails), ("birch", "0.02", answers))
        ],
        retry=Retry(max_retries=0),
    )
    async with ActorSystem("life", log=False) as system:
        ledger = system.spawn(lambda: Ledger(journal=path))
        supervisor = system.spawn(lambda: Supervisor(market, ledger=ledger))
        items = [
            SmartRequest(service="s", input=text, timeout=60.0, request_id=text, strategies=("cheapest",))
            for text in ("seven", "eight")
        ]
        async with robust_batch(supervisor, items, service="s", journal=path, max_concurrency=1) as outcomes:
            assert len([one async for one in outcomes]) == 2
        order = SmartRequest(
            service="s", input="x", timeout=60.0, idempotency_key="order 17", tenant="acme", strategies=("cheapest",)
        )
        await supervisor.ask(order, timeout=60.0)


def test_the_way_of_a_request_is_told_call_by_call(tmp_path: Path, explain: Callable[..., tuple[int, str, str]]):
    path = tmp_path / "run.journal"
    asyncio.run(live(path))
    code, out, _ = explain(path, "seven", "--json")
    assert code == 0
    (told,) = map(json.loads, out.splitlines())
    assert told["key"].endswith("/seven")
    assert (told["run"], told["status"], told["cost"]) == ("batch", "done", "0.02")
    first, second = told["calls"]
    assert (first["provider"], first["money"], first["cost"], first["reserved"]) == ("alder", "free", "0.00", "0.01")
    assert first["seconds"] == pytest.approx(0.2, abs=0.15)
    assert first["error"].startswith("Transient: down")
    assert not {"\x1b", "\n"} & set(first["error"])
    assert (second["provider"], second["money"], second["cost"], second["error"]) == ("birch", "paid", "0.02", None)
    code, out, _ = explain(path, "order 17", "--json")
    (told,) = map(json.loads, out.splitlines())
    assert (told["key"], told["run"], told["cost"]) == ("order 17", None, "0.02")
    assert [(one["provider"], one["money"], one["seconds"]) for one in told["calls"]] == [
        ("alder", "free", None),
        ("birch", "paid", None),
    ]
    code, out, _ = explain(path, "eight")
    assert code == 0
    assert "2 calls, $0.02; done, of 'batch'" in out
    assert "\x1b" not in out
    code, _, err = explain(path, "nine")
    assert code == 2
    assert "knows no request 'nine'" in err
