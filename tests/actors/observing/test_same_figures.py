"""At any moment of a day, the page, /metrics, GetStatus and the ledger's statement tell the same figures."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from actors import GetStatus, Monitor, Throttled, Transient
from actors.ledger import GetStatement, OpenAccount
from tests.actors.dashboard.stage import looked_at
from tests.actors.observing.test_prometheus import scrape
from tests.proofs import repeated

if TYPE_CHECKING:
    from actors.observing import PrometheusMetrics

DAY = 3_600.0 * repeated(24)
"""In seconds; by default, three hours stand for it."""
MOMENTS = 50
MICROS = 1_000_000
TROUBLES = (
    None,
    Transient("down", outcome="not_started"),
    Transient("it may have run", charged="held"),
    Throttled("429", retry_after=5.0),
    ConnectionResetError("gone"),
)


async def a_day(stage: Any, dice: random.Random) -> None:
    """Have requests come in waves, while providers fail in turn and are slow."""
    under_way: set[asyncio.Task[Any]] = set()
    try:
        while True:
            await asyncio.sleep(dice.expovariate(100 / DAY))
            for name in ("alder", "birch"):
                stage.failing[name] = dice.choice((None, *TROUBLES))
            stage.latency = dice.choice((0.05, 2.0, 20.0))
            for _ in range(dice.randrange(1, 9)):
                asked = stage.request(account="day", idempotency_key=dice.choice((None, f"{dice.random()}")))
                task = asyncio.create_task(asked)
                under_way.add(task)
                task.add_done_callback(under_way.discard)
    finally:
        for task in under_way:
            task.cancel()


async def compare(stage: Any, metrics: PrometheusMetrics) -> tuple[int, int, int]:
    """Hold the four accounts of one moment beside each other; return what was under way, held and spent in it."""
    await stage.look()
    told = await scrape(metrics)
    statuses = await stage.supervisor.ask(GetStatus(), timeout=5.0)
    statement = await stage.ledger.ask(GetStatement("day"), timeout=5.0)
    page = {one.name: one for one in stage.view.accounts.values()}["day"]
    for what in ("settled", "reserved", "held", "cap"):
        expected = getattr(statement, what)
        assert getattr(page, what) == expected
        assert told.value(f"understudy_account_{what}_dollars", account="day") == pytest.approx(expected / MICROS)
    shown = {one.name: one for one in stage.view.providers.values()}
    for one in statuses:
        name, on_page = one.provider.name, shown[one.provider.name]
        figures = ("breaker", "under_way", "queued", "calls", "failures", "trips", "spent")
        assert [getattr(on_page, what) for what in figures] == [getattr(one, what) for what in figures]
        assert told.value("understudy_breaker_state", provider=name, state=one.breaker) == 1
        assert told.value("understudy_calls_under_way", provider=name) == one.under_way
        outcomes = ("done", "failed", "cancelled")
        if one.calls > one.under_way:
            ended = sum(told.value("understudy_calls_total", provider=name, outcome=outcome) for outcome in outcomes)
            assert ended == one.calls - one.under_way
            assert told.value("understudy_cost_dollars_total", provider=name) == pytest.approx(one.spent / MICROS)
    return sum(one.under_way for one in statuses), statement.held, statement.settled


@pytest.mark.parametrize("seed", range(repeated(5)))
async def test_page_metrics_status_and_statement_agree_at_random_moments_of_a_day(seed):
    from actors.observing import PrometheusMetrics  # noqa: PLC0415 - it needs an extra.

    dice = random.Random(seed)
    moments = sorted(dice.uniform(0, DAY) for _ in range(MOMENTS))
    async with looked_at(max_waiting=50) as stage:
        await stage.ledger.ask(OpenAccount(name="day", cap="100"), timeout=5.0)
        monitor = stage.system.spawn(Monitor)
        metrics = PrometheusMetrics(monitor, stage.supervisor, accounts=["day"])
        day = asyncio.create_task(a_day(stage, dice))
        loop = asyncio.get_running_loop()
        begun, seen = loop.time(), []
        for moment in moments:
            await asyncio.sleep(max(0.0, begun + moment - loop.time()))
            seen.append(await compare(stage, metrics))
        day.cancel()
        await asyncio.wait([day])
    under_way, held, settled = zip(*seen, strict=True)
    assert any(under_way)
    assert held[-1] > 0
    assert settled[-1] > 0
