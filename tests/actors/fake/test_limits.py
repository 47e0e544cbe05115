"""Limits: buckets that refill, and the headers and refusals in which each dialect tells them."""

from __future__ import annotations

import asyncio
from typing import Any, get_args

import pytest

from actors.fake import FakeConfig, FakeLimits, FakeModel, fake_server
from actors.fake.config import DialectName
from actors.fake.dialects import DIALECTS
from actors.fake.refusals import error_body
from actors.fake.throttle import FakeThrottleState, LimitRefusal, limit_headers
from tests.actors.fake.calls import asks, call, until_busy
from tests.real_time import FAR, skip

LIMITS = FakeLimits(requests=60, tokens=6000, requests_per_day=1000, input_tokens=3000, output_tokens=1200)


def told(dialect: DialectName, **options: Any) -> dict[str, str]:
    state = FakeThrottleState("m", LIMITS)
    state.admit(600, 0.0)
    rows = limit_headers(DIALECTS[dialect], state, now=0.0, wall=1_800_000_000.0, **options)
    return {name.decode(): value.decode() for name, value in rows}


def test_a_bucket_refills_evenly_and_refuses_with_the_wait_until_it_fits():
    state = FakeThrottleState("m", FakeLimits(requests=2))
    state.admit(1, 0.0)
    state.admit(1, 0.0)
    with pytest.raises(LimitRefusal) as refused:
        state.admit(1, 10.0)
    assert refused.value.retry_after == pytest.approx(20.0)
    state.admit(1, 30.0)


def test_what_can_never_fit_is_refused_without_a_wait():
    with pytest.raises(LimitRefusal, match="Request too large") as refused:
        FakeThrottleState("m", FakeLimits(tokens=100)).admit(101, 0.0)
    assert refused.value.retry_after is None


def test_output_is_drawn_when_it_has_come_and_refuses_the_next():
    state = FakeThrottleState("m", FakeLimits(output_tokens=60))
    state.admit(1, 0.0)
    state.used(90, 0.0)
    with pytest.raises(LimitRefusal) as refused:
        state.admit(1, 0.0)
    assert refused.value.retry_after == pytest.approx(31.0)


def test_each_dialect_tells_its_limits_in_its_own_words():
    assert told("openai") == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "5400",
        "x-ratelimit-reset-tokens": "6s",
    }
    assert told("groq")["x-ratelimit-limit-requests"] == "1000"
    assert told("groq")["x-ratelimit-reset-requests"] == "1m26.4s"
    assert told("anthropic")["anthropic-ratelimit-input-tokens-remaining"] == "2400"
    assert told("anthropic")["anthropic-ratelimit-input-tokens-reset"] == "2027-01-15T08:00:12Z"
    assert told("mistral")["x-ratelimit-remaining-tokens-minute"] == "5400"
    assert told("together")["x-tokenlimit-remaining"] == "5400"
    assert told("openrouter") == {}
    assert told("openrouter", refused=True)["x-ratelimit-reset"] == "1800000001000"
    assert told("azure")["x-ratelimit-remaining-requests"] == "59"
    assert told("gemini") == told("deepseek") == {}


@pytest.mark.parametrize("dialect", get_args(DialectName))
@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_every_dialect_has_a_body_for_every_error(dialect: DialectName, status: int):
    body = error_body(DIALECTS[dialect], status, retry_after=2.0)
    assert "None" not in str(body.get("message") if isinstance(body, dict) and "message" in body else "")
    assert body


@pytest.mark.real_time
@pytest.mark.parametrize("dialect", get_args(DialectName))
async def test_a_call_beyond_a_limit_is_429_until_its_wait_is_over(dialect: DialectName):
    model = FakeModel(name="m", limits=FakeLimits(requests=1, requests_per_day=10_000, tokens=100_000))
    async with fake_server(FakeConfig(models=(model,), dialect=dialect)) as server:
        path, body = (
            ("/v1/messages", asks(max_tokens=9)) if dialect == "anthropic" else ("/v1/chat/completions", asks())
        )
        statuses = [(await call(server, body, path=path)).status for _ in range(2)]
        refused = await call(server, body, path=path)
        await skip(61)
        after = await call(server, body, path=path)
        await server.until_idle()
    assert statuses == [200, 429]
    assert after.status == 200
    has_wait = {"openai", "azure", "groq", "together", "anthropic"}
    assert ("retry-after" in refused.headers) == (dialect in has_wait)
    if dialect == "gemini":
        delays = [one["retryDelay"] for one in refused.json[0]["error"]["details"] if "retryDelay" in one]
        assert 58 < float(delays[0].removesuffix("s")) <= 60
    assert [bool(line.charged) for line in server.books.lines] == [False] * 4  # They are free.


@pytest.mark.real_time
async def test_limits_are_each_key_s_own():
    model = FakeModel(name="m", limits=FakeLimits(requests=1))
    async with fake_server(FakeConfig(models=(model,))) as server:
        statuses = [
            (await call(server, asks(), authorization=f"Bearer {key}")).status for key in ("sk-a", "sk-b", "sk-a")
        ]
    assert statuses == [200, 200, 429]


@pytest.mark.real_time
async def test_calls_at_the_same_time_are_limited_and_their_place_comes_back():
    model = FakeModel(name="m", latency=FAR, limits=FakeLimits(concurrent=1))
    async with fake_server(FakeConfig(models=(model,))) as server:
        first = asyncio.ensure_future(call(server, asks()))
        await until_busy(server)
        second = await call(server, asks())
        first.cancel()
        await server.until_idle()
        third = asyncio.ensure_future(call(server, asks()))
        await until_busy(server)
        await skip(FAR + 1)
        assert (second.status, (await third).status) == (429, 200)
    assert server.books.peak == 2


@pytest.mark.real_time
async def test_an_idempotency_key_gets_its_first_answer_again_at_no_charge():
    config = FakeConfig(models=(FakeModel(name="m"),), idempotency=True)
    async with fake_server(config) as server, fake_server(FakeConfig(models=config.models)) as other:
        first = await call(server, asks(), idempotency_key="k")
        again = await call(server, asks(), idempotency_key="k")
        changed = await call(server, asks("other"), idempotency_key="k")
        deaf = [(await call(other, asks(), idempotency_key="k")).json["id"] for _ in range(2)]
        await server.until_idle()
    assert first.json == again.json
    assert changed.status == 400
    assert deaf[0] != deaf[1]
    assert [line.replayed for line in server.books.lines] == [False, True, False]


@pytest.mark.real_time
async def test_a_generation_s_cost_is_told_after_its_delay():
    model = FakeModel(name="m")
    config = FakeConfig(models=(model,), dialect="openrouter", cost_delay=5.0)
    async with fake_server(config) as server:
        got = await call(server, asks(), path="/api/v1/chat/completions")
        await server.until_idle()
        path = f"/api/v1/generation?id={got.json['id']}"
        early = await call(server, None, path=path, method="GET")
        await skip(6)
        late = await call(server, None, path=path, method="GET")
    assert (early.status, late.status) == (404, 200)
    assert late.json["data"]["native_tokens_completion"] == got.json["usage"]["completion_tokens"]
    assert got.json["usage"]["cost"] == late.json["data"]["total_cost"]
