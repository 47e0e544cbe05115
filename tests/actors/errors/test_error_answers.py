"""Answers that providers and proxies really give: what each means for a paid call, who is called next, what is held."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from actors import (
    CallFailed,
    Listing,
    Permanent,
    Provider,
    ProviderCall,
    to_micros,
)
from actors.errors import QuotaExhausted, Throttled
from actors.transports.http import HttpTransport
from tests.actors.supervisor.stage import staged

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from actors.transports.wire import WireProgress, WireRequest

DATA = Path(__file__).resolve().parents[2] / "data"
ANSWERS: list[dict[str, Any]] = json.loads((DATA / "error_answers.json").read_text(encoding="utf-8"))
WORDINGS: list[dict[str, Any]] = json.loads((DATA / "error_wordings.json").read_text(encoding="utf-8"))
"""Bodies as providers word them, shortened; made for these tests, and no records of one exchange."""


def name_of(row: Mapping[str, Any]) -> str:
    return f"{row['host']} {row['status']} {row['family']}"


def body_of(row: Mapping[str, Any]) -> bytes:
    body = row["body"]
    return body.encode() if isinstance(body, str) else json.dumps(body, ensure_ascii=False).encode()


class Said:
    """A response with this status, these headers and this body."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body

    async def chunks(self, *, gap: float | None = None) -> AsyncIterator[bytes]:
        if self.body:
            yield self.body

    def close(self) -> None:
        pass


class SayingWire:
    """A wire to a server that answers every request alike."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.answer = (status, headers, body)
        self.requests: list[WireRequest] = []

    async def send(self, request: WireRequest, progress: WireProgress) -> Said:
        progress.sending()
        self.requests.append(request)
        return Said(*self.answer)

    async def aclose(self) -> None:
        pass


def wire_saying(row: Mapping[str, Any]) -> SayingWire:
    return SayingWire(row["status"], row.get("headers", {}), body_of(row))


def paid_transport(name: str, host: str, wire: SayingWire) -> HttpTransport:
    return HttpTransport(name, f"https://{host}/v1", paid=True, idempotent="no", wire=wire)


def two(host: str, first: SayingWire, second: SayingWire) -> list[Listing]:
    """List a cheap provider at `host`, which is called first, and a dearer one."""
    return [
        Listing(
            provider=Provider(name=name, services={"s"}, price=to_micros(price)),
            transport=lambda name=name, at=at, wire=wire: paid_transport(name, at, wire),
        )
        for name, price, at, wire in (("alder", "0.01", host, first), ("birch", "0.02", "birch.example", second))
    ]


async def failure_of(row: Mapping[str, Any]) -> CallFailed:
    transport = paid_transport("alder", row["host"], wire_saying(row))
    call = ProviderCall(
        service="s", input="x", request_id="r", idempotency_key="k", max_cost=to_micros("0.01"), timeout=3.0
    )
    with pytest.raises(CallFailed) as caught:
        await transport.call(call)
    return caught.value


@pytest.mark.parametrize("row", ANSWERS, ids=name_of)
async def test_an_answer_to_a_paid_call_means_what_its_provider_means(row: Mapping[str, Any]):
    failure = await failure_of(row)
    assert (type(failure).__name__, failure.charged) == (row["family"], row["charged"])
    if row["status"] >= 300:
        assert failure.status == row["status"]
    if isinstance(failure, Permanent):
        assert (failure.scope, failure.concerns) == (row["scope"], row.get("concerns"))
    if isinstance(failure, Throttled | QuotaExhausted):
        assert failure.outcome == "not_started"
    assert (failure.outcome == "unknown") == (row["charged"] == "held")


@pytest.mark.parametrize("row", WORDINGS, ids=name_of)
async def test_further_wordings_of_the_same_kinds_are_understood(row: Mapping[str, Any]):
    failure = await failure_of(row)
    assert type(failure).__name__ == row["family"]
    if isinstance(failure, Permanent):
        assert (failure.scope, failure.concerns) == (row["scope"], row.get("concerns"))
    assert (failure.charged == "held") == (row["family"] == "OutcomeUnknown")


@pytest.mark.parametrize("row", [row for row in ANSWERS if row.get("wait") is not None], ids=name_of)
async def test_the_wait_that_an_answer_tells_is_kept(row: Mapping[str, Any]):
    failure = await failure_of(row)
    assert failure.retry_after is not None
    assert failure.retry_after == pytest.approx(row["wait"], rel=0.05)


@pytest.mark.parametrize("row", ANSWERS, ids=name_of)
async def test_a_market_of_two_calls_the_next_exactly_if_nothing_can_be_paid_twice(row: Mapping[str, Any]):
    refusing = wire_saying(row)
    healthy = SayingWire(200, {}, b'{"output": "fine", "cost": "0.02"}')
    async with staged(*two(row["host"], refusing, healthy)) as stage:
        if row["next"]:
            result = await stage.request(timeout=5.0)
            assert (result.output, result.provider) == ("fine", "birch")
        else:
            with pytest.raises(CallFailed) as caught:
                await stage.request(timeout=5.0)
            assert type(caught.value).__name__ == row["family"]
        assert (len(refusing.requests), len(healthy.requests)) == (1, int(row["next"]))
        held = [one.provider for one in stage.ledger.book.unsettled()]
        assert held == (["alder"] if row["charged"] == "held" else [])
        settled = to_micros("0.02") * row["next"] + to_micros("0.01") * (row["charged"] == "yes")
        assert stage.ledger.book.statement(None).settled == settled
        await stage.assert_at_rest()


CONCERNS_ALL = [row for row in ANSWERS if row.get("concerns") in {"key", "account", "region"}]


@pytest.mark.parametrize("row", CONCERNS_ALL[::5], ids=name_of)
async def test_a_refused_key_account_or_region_keeps_further_requests_from_that_provider(row: Mapping[str, Any]):
    refusing = wire_saying(row)
    healthy = SayingWire(200, {}, b'{"output": "fine"}')
    async with staged(*two(row["host"], refusing, healthy)) as stage:
        for _ in range(3):
            assert (await stage.request(timeout=5.0)).provider == "birch"
        assert len(refusing.requests) == 1


def test_every_answer_has_a_source_and_there_are_enough():
    assert all(row["source"].startswith("https://") for row in ANSWERS)
    assert len(ANSWERS) >= 150
