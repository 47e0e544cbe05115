"""Each request has a log line, without a monitor; of many failures alike, few are warnings."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from loguru import logger

from actors import BreakerConfig, CallFailed, Market, Monitor, Permanent, Retry, Supervisor, smart_request
from actors.monitor import GetMetrics
from runtime import ActorSystem
from tests.actors.supervisor.stage import Script, flaky, offer, staged

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def lines() -> Iterator[list[tuple[str, str]]]:
    """Collect the lines, each with its level."""
    found: list[tuple[str, str]] = []

    def keep(line: Any) -> None:
        found.append((line.record["level"].name, line.record["message"]))

    sink = logger.add(keep, level="DEBUG")
    try:
        yield found
    finally:
        logger.remove(sink)


async def test_an_answered_request_has_one_line_with_provider_attempts_latency_and_cost():
    with lines() as found:
        async with staged(offer("a", Script(flaky("a"), "done", lasts=0.25), price=2_000)) as stage:
            await stage.request(request_id="r1")
    assert found == [("DEBUG", "request r1 for s answered by a: 2 attempts, 0.500 s, $0.002")]


async def test_as_json_each_request_and_each_attempt_is_one_line_found_by_the_id_of_the_request(capsys):
    market = Market(providers=[offer("a", Script(flaky("a"), "done", lasts=0.25), price=2_000)])
    async with ActorSystem("s", log="json") as system:
        monitor = system.spawn(lambda: Monitor(log_requests=True))
        supervisor = system.spawn(lambda: Supervisor(market))
        await smart_request(supervisor, service="s", input="x", request_id="r1")
        await monitor.ask(GetMetrics(), timeout=1.0)
    lines = [line for line in map(json.loads, capsys.readouterr().err.splitlines()) if line["request_id"] == "r1"]
    (ended,) = [line for line in lines if "attempts" in line]
    assert ended["logger"] == "actors.supervisor.supervisor.Supervisor"
    assert (ended["provider"], ended["attempts"], ended["cost"], ended["error"]) == ("a", 2, 2_000, None)
    assert ended["latency"] >= 0.5
    attempts = [(line["attempt"], line["level"], line["cost"]) for line in lines if "attempt " in line["message"]]
    assert attempts == [(1, "WARNING", 0), (2, "DEBUG", 2_000)]


async def test_a_system_without_log_lines_has_none_of_its_requests():
    market = Market(providers=[offer("a", Script("done"))])
    with lines() as found:
        async with ActorSystem("quiet", log=False) as system:
            supervisor = system.spawn(lambda: Supervisor(market))
            await smart_request(supervisor, service="s", input="x")
    assert found == []


async def test_a_failed_request_is_a_warning_with_its_cause_in_one_line():
    refusal = Permanent("no\nsuch input", provider="a", scope="request")
    with lines() as found:
        async with staged(offer("a", Script(refusal))) as stage:
            with pytest.raises(CallFailed):
                await stage.request(request_id="r1")
    (line,) = found
    assert line[0] == "WARNING"
    assert line[1].startswith("request r1 for s failed at a: 1 attempt, 0.000 s, $0.00, Permanent: ")
    assert "no such input" in line[1]


async def test_a_request_that_is_given_up_is_no_warning():
    with lines() as found:
        async with staged(offer("a", Script(lasts=5.0))) as stage:
            request = asyncio.create_task(stage.request())
            await asyncio.sleep(1.0)
            request.cancel()
            await asyncio.wait([request])
    assert [(level, "was given up at a: 1 attempt, 1.000 s, $0.00, Cancelled" in text) for level, text in found] == [
        ("DEBUG", True)
    ]


async def test_of_thousands_of_failures_alike_few_are_warnings_and_every_one_has_its_line():
    steady = BreakerConfig(failure_threshold=1_000_000, min_calls=1_000_000)
    with lines() as found:
        async with staged(offer("a", Script(flaky("a"))), breaker=steady, retry=Retry(max_retries=0)) as stage:
            for _ in range(2_000):
                with suppress(CallFailed):
                    await stage.request()
    levels = Counter(level for level, _ in found)
    assert levels["WARNING"] <= 20
    assert levels.total() == 2_000
