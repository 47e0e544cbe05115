"""Twenty hostile texts through the views that are lines of text: export, bar, log, labels and webhooks."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from typing import TYPE_CHECKING

import pytest
from loguru import logger
from rich.console import Console

from actors import FunctionTransport, Listing, Market, Monitor, Provider, Supervisor, Transient, smart_request
from actors.command.export import ExportRow, csv_lines
from actors.command.progress import LiveProgress, PlainProgress, logging_to
from actors.webhooks.notice import Notice
from runtime import ActorSystem
from tests.actors.dashboard.hostile import HOSTILE

if TYPE_CHECKING:
    from actors import ProviderCall

NAMES = [text[:60].replace("\ud83d\ude00", "") for text in HOSTILE]
"""What may be the name of a provider or an account: a text that UTF-8 cannot hold is refused."""


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_an_export_has_one_record_an_entry_and_no_cell_that_is_a_formula(name: str):
    row = ExportRow(entry=1, time="2026-01-01", kind="paid", account=(name, "team"), provider=name)
    text = "\n".join(csv_lines([row, row])) + "\n"
    records = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(records) == 2
    mark = "'" if name[0] in "=+-@\t\r" else ""
    assert {record["provider"] for record in records} == {mark + name}
    assert {record["account"] for record in records} == {f"{mark}{name}; team"}


@pytest.mark.parametrize("is_live", [False, True])
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_bar_and_its_log_show_one_line_without_what_a_terminal_obeys(text: str, is_live: bool):  # noqa: FBT001
    written = io.StringIO()
    console = Console(file=written, force_terminal=False, width=400_000)
    progress = LiveProgress(console) if is_live else PlainProgress(written.write)
    with logging_to(progress, is_stopping=lambda: False):
        logger.warning("{}", text)
        try:
            raise ValueError(text)
        except ValueError:
            logger.opt(exception=True).error("{}", text)
    progress.close()
    lines = written.getvalue().splitlines()
    assert len([line for line in lines if line]) == 2
    assert {unicodedata.category(char) for char in "".join(lines)}.isdisjoint({"Cc", "Cf", "Cs", "Zl", "Zp"})


async def test_labels_are_read_by_prometheus_as_they_were_written():
    parser = pytest.importorskip("prometheus_client.parser")
    from actors.observing import PrometheusMetrics  # noqa: PLC0415 - it needs an extra.

    async def fail(call: ProviderCall) -> str:
        raise Transient(HOSTILE[len(call.request_id) % len(HOSTILE)], outcome="not_started")

    market = Market(
        providers=[
            Listing(provider=Provider(name=name, services={"s"}), transport=lambda: FunctionTransport(fail))
            for name in NAMES
        ]
    )
    async with ActorSystem("hostile", log=False) as system:
        monitor = system.spawn(Monitor)
        supervisor = system.spawn(lambda: Supervisor(market))
        with pytest.raises(Exception, match="providers"):
            await smart_request(supervisor, service="s", input="x", timeout=5.0)
        body, _ = await PrometheusMetrics(monitor, supervisor).scrape()
    families = list(parser.text_string_to_metric_families(body.decode()))
    told = {
        value for family in families for one in family.samples for key, value in one.labels.items() if key == "provider"
    }
    assert told <= {*NAMES, "other"}
    assert len(told) >= len(NAMES) - 1


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_webhook_tells_a_name_as_data(name: str):
    notice = Notice(id="1", incident="1", turn="raised", rule="spend", subject=name, value=1.0, at=1.0)
    assert json.loads(notice.body)["data"]["subject"] == name
