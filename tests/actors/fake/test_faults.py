"""Every kind of fault, over the wire: what the client sees, and what the books say."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from actors.fake import FakeConfig, FakeModel, FakePrice, fake_server
from actors.fake.draws import Draw
from actors.fake.faults import (
    AnyFault,
    FakeCut,
    FakeErrorEvent,
    FakeErrorInside,
    FakeGarbage,
    FakeLostReply,
    FakeNoUsage,
    FakeOddAnswer,
    FakeOutage,
    FakePriceChange,
    FakeSlowness,
    FakeStall,
    FakeThrottle,
    FaultPlan,
    strike,
)
from actors.fake.provider import FakeProvider
from actors.fake.routes import route
from actors.fake.wire import FakeRequest
from tests.actors.fake.calls import asks, call, until_busy
from tests.real_time import FAR, skip

PRICE = FakePrice(input="0.25", output="2")
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
FORMS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": asks(),
    "/v1/messages": asks(max_tokens=50),
    "/v1/responses": {"model": "m", "input": "hello"},
}


def config(*faults: AnyFault, **options: Any) -> FakeConfig:
    settings = {"price": PRICE} | options
    return FakeConfig(models=(FakeModel(name="m", **settings),), plan=FaultPlan(faults=faults), seed=1)


def test_a_window_is_open_from_its_begin_until_just_before_its_end():
    plan = FaultPlan(faults=(FakeOutage(since=5.0, until=10.0),))
    struck = [bool(strike(plan, "m", draw=Draw(0, b"", 0), now=now).names) for now in (4.9, 5.0, 9.9, 10.0)]
    assert struck == [False, True, True, False]


def test_a_share_is_met_and_depends_on_content_and_try_alone():
    plan = FaultPlan(faults=(FakeThrottle(share=0.2),))
    requests = [(b"%d" % number, number % 3) for number in range(5000)]
    struck = {one: strike(plan, "m", draw=Draw(1, *one), now=0.0).names for one in requests}
    assert 0.17 < sum(map(bool, struck.values())) / 5000 < 0.23
    assert struck == {one: strike(plan, "m", draw=Draw(1, *one), now=99.0).names for one in reversed(requests)}
    assert struck != {one: strike(plan, "m", draw=Draw(2, *one), now=0.0).names for one in requests}


def test_one_fault_more_shifts_no_other():
    strays = FakeThrottle(share=0.3)
    alone, beside = FaultPlan(faults=(strays,)), FaultPlan(faults=(strays, FakeLostReply(share=0.3)))
    for number in range(200):
        draw = Draw(0, b"%d" % number, 0)
        assert strike(alone, "m", draw=draw, now=0.0).names == tuple(
            name for name in strike(beside, "m", draw=draw, now=0.0).names if name == "throttle"
        )


def test_tries_and_models_limit_a_fault():
    plan = FaultPlan(faults=(FakeOutage(tries=2, models=("m",)),))
    assert [bool(strike(plan, "m", draw=Draw(0, b"", number), now=0.0).names) for number in range(3)] == [1, 1, 0]
    assert strike(plan, "other", draw=Draw(0, b"", 0), now=0.0).names == ()


def told_by(provider: FakeProvider, path: str) -> int:
    request = FakeRequest(method="GET", path=path, query="", headers={}, body=b"")
    return route(provider, request, now=1.0).status


def test_an_outage_strikes_what_charges_nothing_unless_it_is_of_some_models_alone():
    for status in (503, 0):
        provider = FakeProvider(config(FakeOutage(status=status)))
        assert {told_by(provider, path) for path in ("/v1/models", "/v1/models/m", "/v1/generation")} == {status}
        assert told_by(provider, "/books") == 200
    provider = FakeProvider(config(FakeOutage(models=("m",))))
    assert [told_by(provider, path) for path in ("/v1/models", "/v1/models/m")] == [200, 503]
    for fault in (FakeOutage(since=5.0), FakeThrottle(), FakeGarbage()):
        assert told_by(FakeProvider(config(fault)), "/v1/models") == 200
    provider = FakeProvider(config(FakeOutage(share=0.3)))
    statuses = [told_by(provider, "/v1/models") for _ in range(300)]
    assert 60 < statuses.count(503) < 120


@pytest.mark.parametrize("bad", [{"share": 1.5}, {"share": -0.1}, {"since": 5.0, "until": 1.0}])
def test_a_fault_that_cannot_be_is_refused(bad: dict[str, float]):
    with pytest.raises(ValueError, match="fault"):
        FakeOutage(**bad)


@pytest.mark.real_time
@pytest.mark.parametrize("path", FORMS)
class TestOverTheWire:
    async def test_an_outage_refuses_and_charges_nothing(self, path: str):
        async with fake_server(config(FakeOutage(retry_after=1.5))) as server:
            got = await call(server, FORMS[path], path=path)
            await server.until_idle()
        assert got.status == (529 if path == "/v1/messages" else 503)
        assert got.headers["retry-after"] == "2"
        assert got.json["error"]["message"]
        assert server.books.charged == 0
        assert server.books.lines[0].faults == ("outage",)

    async def test_an_outage_without_a_status_closes_the_connection(self, path: str):
        async with fake_server(config(FakeOutage(status=0))) as server:
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await call(server, FORMS[path], path=path)
            await server.until_idle()
        assert server.books.charged == 0

    async def test_the_first_try_alone_is_struck(self, path: str):
        async with fake_server(config(FakeThrottle(tries=1, retry_after=3.0))) as server:
            statuses = [(await call(server, FORMS[path], path=path)).status for _ in range(2)]
        assert statuses == [429, 200]

    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_lost_reply_is_charged(self, path: str, stream: bool):  # noqa: FBT001 - a parameter of the test.
        async with fake_server(config(FakeLostReply())) as server:
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await call(server, FORMS[path] | {"stream": stream}, path=path)
            await server.until_idle()
        (line,) = server.books.lines
        assert (line.answered, line.status) == (False, 0)
        assert line.charged > 0

    @pytest.mark.parametrize("at", [0, 1, 150])
    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_cut_comes_at_its_byte(self, path: str, at: int, stream: bool):  # noqa: FBT001 - as above.
        async with (
            fake_server(config(FakeCut(at_byte=at))) as server,
            aiohttp.ClientSession() as session,
            session.post(server.url + path, json=FORMS[path] | {"stream": stream}) as response,
        ):
            if at:
                assert await response.content.readexactly(at)
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.content.read()
            await server.until_idle()
        assert not server.books.lines[0].answered

    async def test_a_cut_after_a_stall_repeats_no_byte(self, path: str):
        stall = FakeStall(at="mid_stream", seconds=0.001)
        async with (
            fake_server(config(stall, FakeCut(part=0.75))) as server,
            aiohttp.ClientSession() as session,
            session.post(server.url + path, json=FORMS[path]) as response,
        ):
            assert await response.content.readexactly(int(0.75 * int(response.headers["content-length"])))
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.content.read()

    async def test_a_drawn_cut_comes_within_the_stream_and_is_charged_in_part(self, path: str):
        async with fake_server(config(FakeCut(part=0.5))) as server:
            with pytest.raises(aiohttp.ClientPayloadError):
                await call(server, FORMS[path] | {"stream": True}, path=path)
            await server.until_idle()
        (line,) = server.books.lines
        assert 0 < line.usage.output < 32

    @pytest.mark.parametrize("form", ["html", "half_json", "wrong_shape", "empty", "binary"])
    async def test_garbage_is_charged_and_has_status_200(self, path: str, form: Any):
        async with fake_server(config(FakeGarbage(form=form))) as server:
            got = await call(server, FORMS[path], path=path)
            await server.until_idle()
        assert got.status == 200
        assert b'"usage":{' not in got.body
        assert server.books.charged > 0

    async def test_an_error_inside_a_200_is_not_charged(self, path: str):
        async with fake_server(config(FakeErrorInside())) as server:
            got = await call(server, FORMS[path], path=path)
            await server.until_idle()
        assert got.status == 200
        assert got.json["error"]
        assert server.books.charged == 0

    async def test_an_error_event_ends_a_stream_and_what_came_is_charged(self, path: str):
        async with fake_server(config(FakeErrorEvent(after_events=8))) as server:
            got = await call(server, FORMS[path] | {"stream": True}, path=path)
            await server.until_idle()
        assert len(got.events) == 9
        assert got.events[-1].get("error") or got.events[-1]["type"] == "error"
        (line,) = server.books.lines
        assert 0 < line.usage.output < 32
        assert not line.answered

    async def test_usage_is_left_out_or_empty_and_charged_all_the_same(self, path: str):
        for empty in (False, True):
            async with fake_server(config(FakeNoUsage(empty=empty))) as server:
                got = await call(server, FORMS[path], path=path)
                await server.until_idle()
            usage = got.json.get("usage")
            assert usage is None if not empty else not any(one for one in usage.values() if isinstance(one, int))
            assert server.books.charged > 0

    async def test_a_price_changes(self, path: str):
        async with fake_server(config(FakePriceChange(price=FakePrice(per_call="0.5")))) as server:
            await call(server, FORMS[path], path=path)
            await server.until_idle()
        assert server.books.charged * 2 == 1

    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_stall_comes_before_the_first_byte_and_ends(self, path: str, stream: bool):  # noqa: FBT001 - as above.
        async with fake_server(config(FakeStall(seconds=FAR))) as server:
            asking = asyncio.ensure_future(call(server, FORMS[path] | {"stream": stream}, path=path))
            await until_busy(server)
            await skip(FAR + 1)
            assert (await asking).status == 200

    async def test_a_stall_comes_in_mid_stream(self, path: str):
        async with (
            fake_server(config(FakeStall(at="mid_stream", seconds=FAR, after_events=4))) as server,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session,
            session.post(server.url + path, json=FORMS[path] | {"stream": True}) as response,
        ):
            for _ in range(4):
                await response.content.readuntil(b"\n\n")
            reading = asyncio.ensure_future(response.content.readuntil(b"\n\n"))
            await asyncio.sleep(0)
            assert not reading.done()
            await skip(FAR + 1)
            assert await reading
            await response.read()
            await server.until_idle()
        assert server.books.lines[0].answered

    async def test_slowness_multiplies_the_latency(self, path: str):
        async with fake_server(config(FakeSlowness(factor=1000.0), latency=FAR / 1000)) as server:
            asking = asyncio.ensure_future(call(server, FORMS[path], path=path))
            await until_busy(server)
            await skip(FAR / 2)
            assert not asking.done()
            await skip(FAR)
            assert (await asking).status == 200

    @pytest.mark.parametrize("answer", ["refusal", "content_filter", "empty", "length"])
    async def test_odd_answers_are_charged(self, path: str, answer: Any):
        async with fake_server(config(FakeOddAnswer(answer=answer))) as server:
            got = await call(server, FORMS[path], path=path)
            await server.until_idle()
        assert got.status == 200
        assert server.books.charged > 0


@pytest.mark.real_time
async def test_a_plan_is_changed_in_mid_run_by_http_and_its_times_count_from_then():
    async with fake_server(config()) as server:
        before = await call(server, asks())
        put = await call(server, b'{"faults": [{"kind": "outage", "until": 1000}]}', path="/plan")
        during = await call(server, asks())
        wrong = await call(server, b'{"faults": [{"kind": "outrage"}]}', path="/plan")
        told = await call(server, None, path="/plan", method="GET")
        await skip(2000)
        after = await call(server, asks())
    assert [one.status for one in (before, put, during, wrong, after)] == [200, 200, 503, 400, 200]
    assert "outrage" in wrong.json["error"]["message"]
    assert told.json["faults"][0]["kind"] == "outage"


@pytest.mark.real_time
async def test_an_answer_that_is_no_json_comes_although_a_schema_was_asked_for():
    async with fake_server(config(FakeOddAnswer(answer="not_json"))) as server:
        got = await call(server, asks(response_format={"type": "json_object"}))
    assert not got.json["choices"][0]["message"]["content"].startswith("{")


@pytest.mark.real_time
async def test_the_same_plan_strikes_the_same_requests_in_any_order():
    async def struck(texts: list[str]) -> set[str]:
        async with fake_server(config(FakeThrottle(share=0.4), FakeNoUsage(share=0.4))) as server:
            return {text for text in texts if (await call(server, asks(text))).status == 429}

    texts = [f"text {number}" for number in range(60)]
    first = await struck(texts)
    assert first == await struck(texts[::-1])
    assert 10 < len(first) < 40


@pytest.mark.real_time
@pytest.mark.parametrize("fault", [None, FakeCut(part=0.5), FakeLostReply()], ids=["left", "cut", "lost"])
async def test_a_reply_that_breaks_off_is_no_error_of_the_server(fault, caplog):
    plan = FaultPlan() if fault is None else FaultPlan(faults=(fault,))
    model = FakeModel(name="m", token_speed=50.0, output_tokens=200.0)
    async with fake_server(FakeConfig(models=(model,), plan=plan)) as server:
        for stream in (True, False):
            calling = asyncio.create_task(call(server, asks(stream=stream)))
            if fault is None:
                await until_busy(server)
                calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
            await server.until_idle()
    assert caplog.records == []
