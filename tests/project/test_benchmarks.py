"""The benchmarks run, in a tiny size and without peers; and the port of the seed shows the defects it is there for."""

from __future__ import annotations

import argparse
import asyncio
import shutil

import pytest

from benchmarks.durable import rows as durable
from benchmarks.engine import rows as engine
from benchmarks.front_door import doors
from benchmarks.front_door import rows as front_door
from benchmarks.growth import rows as growth
from benchmarks.http import rows as http
from benchmarks.models import rows as models
from benchmarks.observing import rows as observing
from benchmarks.resilience import rows as resilience
from benchmarks.scenarios import seed_port


@pytest.mark.real_time
def test_idle_actors_are_measured_in_a_process_of_their_own():
    assert 0 < engine.idle_actors(5_000) < 0.1


@pytest.mark.real_time
@pytest.mark.nightly
@pytest.mark.parametrize("group", resilience.GROUPS)
def test_every_row_of_the_resilience_benchmark_is_measured(group):
    options = argparse.Namespace(rounds=1, only=group, uvloop=False)
    scale = resilience.Scale(calls=50, waiting=0.3, waiters=200, batch=1_000, robust=30, peers=False)
    rows = resilience.collect(options, scale)
    assert rows
    assert all(row.row.startswith(group) and row.value >= 0 for row in rows)
    # A peer that is not there leaves its targets undecided, and no other.
    with_target = [row for row in rows if row.target]
    assert all((row.holds is None) == row.against.endswith("not installed") for row in with_target)
    exact = [row for row in rows if row.target.startswith("= ")]
    assert all(row.holds for row in exact)


@pytest.mark.real_time
@pytest.mark.slow
def test_every_row_of_the_http_benchmark_is_measured():
    rows = http.collect(argparse.Namespace(rounds=1, only="10 at once", uvloop=False), scale=0.02)
    assert [row.row for row in rows[:2]] == [
        "smart request over HTTP, 10 at once",
        "smart request over HTTP, 10 at once, p99",
    ]
    assert all(row.value > 0 and row.ratio for row in rows)


@pytest.mark.real_time
@pytest.mark.nightly
def test_every_row_of_the_benchmark_of_models_is_measured():
    options = argparse.Namespace(rounds=1, only="", uvloop=False)
    rows = models.collect(options, models.Scale(calls=20, troubled=60, peers=False))
    held = {row.row: row.holds for row in rows if row.target}
    assert held["troubles: success of calls whose reply was not broken"]
    assert held["troubles: success, with a risk of one call and restarts"]
    assert [row.against for row in rows if row.holds is None and row.target][:2] == [
        "openai is not installed",
        "litellm is not installed",
    ]


@pytest.mark.real_time
@pytest.mark.nightly
@pytest.mark.parametrize("group", durable.GROUPS)
def test_every_row_of_the_durable_benchmark_is_measured(group):
    rows = durable.collect(argparse.Namespace(rounds=1, only=group, uvloop=False), scale=0.01)
    assert rows
    assert all(row.value >= 0 for row in rows)


@pytest.mark.real_time
@pytest.mark.nightly
def test_every_row_of_the_growth_benchmark_is_measured():
    rows = growth.collect(argparse.Namespace(rounds=1, only="", uvloop=False), scale=0.02)
    assert [row.row for row in rows] == list(growth.GROWTHS)
    assert all(row.target.startswith("<= ") and row.against for row in rows)


@pytest.mark.real_time
@pytest.mark.nightly
@pytest.mark.parametrize("group", observing.GROUPS)
def test_every_row_of_what_it_costs_to_be_looked_at_is_measured(group):
    pytest.importorskip("opentelemetry.sdk")
    rows = observing.collect(argparse.Namespace(rounds=1, only=group, uvloop=False), calls=3)
    assert rows
    assert all(row.row.startswith(group) and row.value for row in rows)


async def failing():
    raise RuntimeError("503 Service Unavailable")


async def test_the_seed_reports_failures_as_successes_and_its_breaker_never_opens():
    breaker = seed_port.CircuitBreaker("seed", failure_threshold=5)

    async def work(_item):
        return await breaker.execute(lambda: seed_port.with_retry(failing, max_retries=3))

    results = await seed_port.concurrent(range(100), work, max_concurrency=10)
    assert all(result.success for result in results)
    assert not any(result.data.success for result in results)
    assert breaker.state == "closed"


async def test_the_seed_admits_a_thousand_callers_at_five_per_second_in_a_fifth_of_a_second():
    limiter = seed_port.RateLimiter(5.0)
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(limiter.acquire() for _ in range(1_000)))
    assert asyncio.get_running_loop().time() - began == pytest.approx(0.2)


async def test_the_seed_lets_everybody_through_when_half_open():
    breaker = seed_port.CircuitBreaker("seed", failure_threshold=5, reset_time=30.0)
    await asyncio.gather(*(breaker.execute(failing) for _ in range(5)), return_exceptions=True)
    await asyncio.sleep(30.0)
    gate, let_through = asyncio.Event(), 0

    async def probe():
        nonlocal let_through
        let_through += 1
        await gate.wait()

    callers = [asyncio.create_task(breaker.execute(probe)) for _ in range(1_000)]
    await asyncio.sleep(0)
    assert let_through == 1_000
    gate.set()
    await asyncio.gather(*callers)


async def test_the_seed_calls_whoever_is_registered_first_and_gives_up_with_its_strategies():
    called: list[str] = []

    def provider(name, reputation):
        async def call(_item):
            called.append(name)
            raise RuntimeError("503 Service Unavailable")

        async def healthy():
            return True

        return seed_port.SeedProvider(name, 0.1, reputation, 1.0, call, healthy)

    discovery = seed_port.ProviderDiscovery([provider("first", 10), provider("best", 90), provider("third", 50)])
    with pytest.raises(RuntimeError, match="All providers failed"):
        await seed_port.smart_request(discovery, service="process", payload=1, strategy="best")
    # The best was chosen, and a provider that would have been left was never asked.
    assert called == ["first"]


async def test_the_seeds_batch_process_keeps_the_order():
    async def work(batch):
        return [-item for item in batch]

    assert await seed_port.batch_process(range(5), work, 2) == [0, -1, -2, -3, -4]


@pytest.mark.real_time
@pytest.mark.nightly
def test_what_a_front_door_adds_is_measured():
    scale = front_door.Scale(calls=20, many=50, in_flight=(1, 16), peers=False)
    rows = front_door.collect(argparse.Namespace(rounds=1, only="", uvloop=False), scale)
    assert [row.row for row in rows if row.target and row.holds is None] == [
        "requests for a second of CPU, beside litellm's proxy"
    ]
    assert sum("in flight" in row.row for row in rows) == 8


@pytest.mark.real_time
def test_a_door_that_is_not_there_is_told_in_one_line(monkeypatch, tmp_path):
    commands = {"": "is not installed; LITELLM_PROXY", str(shutil.which("false")): "ended with 1"}
    monkeypatch.setattr(doors, "BESIDE", str(tmp_path))
    for command, why in commands.items():
        monkeypatch.setenv("LITELLM_PROXY", command)
        with pytest.raises(doors.DoorNotStarted, match=why), doors.running_door(doors.LITELLM, "", tmp_path):
            pass
