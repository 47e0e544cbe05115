"""A scrape, read by Prometheus's own parser: figures, bounded series, and no names but those that are known."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from actors import CallFailed, FunctionTransport, Listing, Market, Monitor, Provider, Supervisor, smart_request
from actors.ledger.messages import GetStatement, OpenAccount
from actors.observing.metric_table import METRICS, OTHER
from actors.observing.samples import Bounded
from runtime import ActorSystem
from tests.actors.supervisor.stage import Script, flaky

parser = pytest.importorskip("prometheus_client.parser")

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from actors.observing import PrometheusMetrics

ROOT = Path(__file__).resolve().parents[3]


class Scraped:
    def __init__(self, text: str) -> None:
        self.families = {one.name: one for one in parser.text_string_to_metric_families(text)}

    def value(self, name: str, /, **labels: str) -> float:
        samples = (sample for family in self.families.values() for sample in family.samples)
        (value,) = [one.value for one in samples if one.name == name and one.labels == labels]
        return value


@asynccontextmanager
async def observed(*scripts: Script, accounts: tuple[str, ...] = ()) -> AsyncIterator[tuple[Any, PrometheusMetrics]]:
    from actors.observing import PrometheusMetrics  # noqa: PLC0415 - it needs an extra.

    names = ("alder", "birch")
    market = Market(
        providers=[
            Listing(
                provider=Provider(name=name, services={"s"}, price="0.02"),
                transport=lambda script=script: FunctionTransport(script, paid=True, idempotent="no"),
                max_concurrency=1,
            )
            for name, script in zip(names, scripts, strict=False)
        ]
    )
    async with ActorSystem("observed", log=False) as system:
        monitor = system.spawn(Monitor)
        supervisor = system.spawn(lambda: Supervisor(market))
        yield supervisor, PrometheusMetrics(monitor, supervisor, accounts=accounts)


async def scrape(metrics: PrometheusMetrics) -> Scraped:
    body, content_type = await metrics.scrape()
    assert content_type.startswith("text/plain")
    return Scraped(body.decode())


async def test_a_scrape_tells_what_monitor_supervisor_and_ledger_tell():
    script = Script("done", flaky("alder"), "done", lasts=2.0)
    async with observed(script, accounts=("team", "not open")) as (supervisor, metrics):
        await supervisor.ask(OpenAccount(name="team", cap="1"), timeout=1.0)
        for _ in range(2):
            await smart_request(supervisor, service="s", input="x", account="team")
        waiting = [asyncio.create_task(smart_request(supervisor, service="s", input="x")) for _ in range(3)]
        await asyncio.sleep(1.0)
        told = await scrape(metrics)
        assert told.value("understudy_requests_total", service="s", outcome="done") == 2
        assert told.value("understudy_calls_total", provider="alder", outcome="failed") == 1
        assert told.value("understudy_call_failures_total", provider="alder", error="Transient") == 1
        assert told.value("understudy_retries_total", provider="alder") == 1
        assert told.value("understudy_cost_dollars_total", provider="alder") == pytest.approx(0.04)
        assert told.value("understudy_breaker_state", provider="alder", state="closed") == 1
        assert told.value("understudy_calls_under_way", provider="alder") == 1
        assert told.value("understudy_requests_queued", provider="alder") == 2
        assert told.value("understudy_requests_under_way") == 3
        assert told.value("understudy_requests_waiting", reason="place") == 2
        statement = await supervisor.ask(GetStatement("team"), timeout=1.0)
        assert told.value("understudy_account_settled_dollars", account="team") == int(statement.settled) / 1e6
        assert told.value("understudy_account_cap_dollars", account="team") == 1.0
        assert told.value("understudy_call_duration_seconds_count", provider="alder") == 3
        assert told.value("understudy_call_duration_seconds_sum", provider="alder") == pytest.approx(6.0, rel=0.01)
        assert told.value("understudy_call_duration_seconds_bucket", provider="alder", le="1.28") == 0
        assert told.value("understudy_call_duration_seconds_bucket", provider="alder", le="2.56") == 3
        await asyncio.gather(*waiting)
        told = await scrape(metrics)
        assert told.value("understudy_requests_total", service="s", outcome="done") == 5
        assert set(METRICS) >= set(told.families)


async def test_a_service_that_no_provider_offers_is_not_told_as_its_client_wrote_it():
    async with observed(Script()) as (supervisor, metrics):
        for number in range(5):
            with pytest.raises(CallFailed):
                await smart_request(supervisor, service=f"evil {number}", input="x")
        body, _ = await metrics.scrape()
        assert b"evil" not in body
        assert Scraped(body.decode()).value("understudy_requests_total", service=OTHER, outcome="failed") == 5


def test_a_series_that_is_told_by_name_is_so_for_good_and_the_rest_are_told_together():
    bounded = Bounded(max_series=3)
    few = [("understudy_retries", (name,), 1.0) for name in "ab"]
    many = [("understudy_retries", (name,), 1.0) for name in "xyabz"]
    assert bounded.of(few) == {"understudy_retries": {("a",): 1.0, ("b",): 1.0}}
    assert bounded.of(many) == {"understudy_retries": {("a",): 1.0, ("b",): 1.0, (OTHER,): 3.0}}
    thousand = [("understudy_call_failures", (f"p{number}", "E"), 1.0) for number in range(5_000)]
    assert len(Bounded().of(thousand)["understudy_call_failures"]) == 1_000


async def test_it_is_an_asgi_application():
    async with observed(Script()) as (_, metrics):
        answers: list[Any] = []

        async def send(message: Any) -> None:
            answers.append(message)

        for method in ("GET", "POST"):
            await metrics({"type": "http", "method": method, "headers": [(b"accept", b"text/plain")]}, None, send)
    assert [one["status"] for one in answers if "status" in one] == [200, 405]
    assert "understudy_events_missed" in Scraped(answers[1]["body"].decode()).families


async def test_a_system_that_has_ended_is_unavailable():
    async with observed(Script()) as (_, metrics):
        pass
    answers: list[Any] = []

    async def send(message: Any) -> None:
        answers.append(message)

    await metrics({"type": "http", "method": "GET", "headers": []}, None, send)
    assert answers[0]["status"] == 503


def test_the_dashboard_of_grafana_asks_only_for_metrics_that_there_are():
    dashboard = json.loads((ROOT / "docs" / "grafana.json").read_text(encoding="utf-8"))
    asked = {
        name for one in dashboard["panels"] for t in one["targets"] for name in re.findall(r"understudy_\w+", t["expr"])
    }
    told = {
        f"{metric.name}{end}"
        for metric in METRICS.values()
        for end in {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}[metric.kind]
    }
    assert asked <= told
    # Every metric is on it.
    assert {name for name in METRICS if not any(one.startswith(name) for one in asked)} == set()
