"""Chats through a supervisor against real servers that fail: what a consumer sees, and what is left behind."""

from __future__ import annotations

import contextlib

import pytest

from actors import GetStatus, Market, RequestOptions, Supervisor
from actors.errors import AllProvidersFailed, BadAnswer, CallFailed, StreamBroken, StreamCut
from actors.fake import FakeConfig, FakeModel, FaultPlan, fake_server
from actors.fake.config import ScriptedAnswer
from actors.fake.faults import FakeCut, FakeErrorEvent, FakeOddAnswer, FakeOutage, FakeStall
from actors.model_calls import TextDelta, ToolCallDelta
from actors.models import chat, chat_stream, compatible
from actors.supervisor import smart_stream
from actors.transports.streaming import Restarted
from runtime import ActorSystem

pytestmark = pytest.mark.real_time


@pytest.fixture
async def stage():
    """Return a function that starts a fake server for each set of faults, and a supervisor over them all."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(*faults, limit=5.0, **model):
            model = {"token_speed": 2_000.0, "output_tokens": 20.0} | model
            servers, listings = [], []
            for number, each in enumerate(faults):
                config = FakeConfig(models=(FakeModel(name="m", **model),), plan=FaultPlan(faults=each), seed=number)
                server = await stack.enter_async_context(fake_server(config))
                servers.append(server)
                listings.append(
                    compatible(
                        "m",
                        preset="vllm",
                        base_url=f"{server.url}/v1",
                        name=f"alder-{number}",
                        price=f"0.00{number + 1}",
                        timeout=limit,
                        paid=True,
                    )
                )
            system = await stack.enter_async_context(ActorSystem("chats", log=False))
            return system.spawn(lambda: Supervisor(Market(providers=listings))), servers

        yield start


def asked(supervisor, **options):
    return chat_stream(supervisor, messages="Hello", options=RequestOptions(strategy="cheapest"), **options)


async def read(stream, pieces):
    async with stream:
        async for piece in stream:
            pieces.append(piece)


async def at_rest(supervisor):
    return all(status.under_way == 0 for status in await supervisor.ask(GetStatus(), timeout=5.0))


async def test_the_pieces_are_the_answer_and_its_end_has_the_figures(stage):
    supervisor, (server,) = await stage(())
    async with asked(supervisor) as stream:
        pieces = [piece async for piece in stream]
    result = stream.result
    assert "".join(piece.text for piece in pieces) == stream.text == result.text != ""
    assert len(pieces) > 5
    assert (result.finish_reason, result.provider, result.usage["completion_tokens"]) == ("stop", "alder-0", 20)
    assert result.result.attempts == 1
    assert server.books.calls == 1
    assert (await chat(supervisor, messages="Hello", options=RequestOptions(strategy="cheapest"))).text


TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


@pytest.mark.parametrize("fields", [{}, {"tools": [TOOL]}], ids=["text", "tool"])
async def test_under_a_key_it_is_given_again_as_a_stream_with_its_figures(stage, fields):
    answers = (ScriptedAnswer(kind="tool", text='{"x": 1}'),) if fields else ()
    supervisor, (server,) = await stage((), answers=answers)
    streams = [asked(supervisor, idempotency_key="k", **fields) for _ in range(3)]
    pieces = [[], [], []]
    for stream, came in zip(streams, pieces, strict=True):
        await read(stream, came)
    first, again, _ = (stream.result for stream in streams)
    assert (again.text, again.tool_calls, again.finish_reason) == (first.text, first.tool_calls, first.finish_reason)
    assert (again.usage, again.model, again.result.replayed, again.cost) == (first.usage, first.model, True, 0)
    assert {type(one) for one in pieces[1]} == {type(one) for one in pieces[0]}
    assert streams[1].text == streams[0].text
    plain = await chat(supervisor, messages="Hello", idempotency_key="k", **fields)
    assert (plain.text, server.books.calls) == (first.text, 1)
    async with asked(supervisor, idempotency_key="k", repurchase=True, **fields) as stream:
        assert [piece async for piece in stream]
    assert not stream.result.result.replayed
    request = {"messages": [{"role": "user", "content": "Hello"}], **fields}
    async with smart_stream(supervisor, service="chat", input=request, idempotency_key="l") as stream:
        first_events = [piece async for piece in stream]
    async with smart_stream(supervisor, service="chat", input=request, idempotency_key="l") as stream:
        events = [piece async for piece in stream]
    assert {type(one) for one in events} == {type(one) for one in first_events}
    assert events[-1].data["usage"] == stream.result.output["usage"] == first_events[-1].data["usage"]
    assert [one.data["choices"][0]["finish_reason"] for one in events if one.data["choices"]][-1] == first.finish_reason


async def test_under_a_key_what_came_of_one_that_broke_off_is_given_again(stage):
    supervisor, (server,) = await stage((FakeCut(part=0.5),))
    pieces, again = [], []
    with pytest.raises(StreamBroken):
        await read(asked(supervisor, idempotency_key="k"), pieces)
    with pytest.raises(StreamCut) as cut:
        await read(asked(supervisor, idempotency_key="k"), again)
    text = "".join(piece.text for piece in pieces)
    assert cut.value.text == "".join(piece.text for piece in again) == text != ""
    assert cut.value.output["choices"][0]["message"]["content"] == text
    assert cut.value.cost > 0
    assert server.books.calls == 1


async def test_before_the_first_piece_another_provider_is_asked_and_nothing_is_told(stage):
    supervisor, _ = await stage((FakeOutage(),), ())
    async with asked(supervisor) as stream:
        pieces = [piece async for piece in stream]
    assert all(isinstance(piece, TextDelta) for piece in pieces)
    assert (stream.result.provider, stream.result.result.attempts) == ("alder-1", 2)


async def test_a_provider_that_is_silent_is_given_up_at_its_own_time_limit(stage):
    supervisor, servers = await stage((FakeStall(),), (), limit=0.3)
    async with asked(supervisor) as stream:
        assert [piece async for piece in stream]
    assert stream.result.provider == "alder-1"
    await servers[0].until_idle()
    assert await at_rest(supervisor)


@pytest.mark.parametrize("fault", [FakeCut(part=0.5), FakeErrorEvent(after_events=6)], ids=["cut", "error"])
async def test_a_stream_that_breaks_off_ends_with_what_came(stage, fault):
    supervisor, _ = await stage((fault,), ())
    pieces = []
    with pytest.raises(StreamBroken) as told:
        await read(asked(supervisor), pieces)
    text = "".join(piece.text for piece in pieces)
    assert text
    assert told.value.answer.output["choices"][0]["message"]["content"] == text
    assert told.value.charged == "yes"
    assert await at_rest(supervisor)


@pytest.mark.parametrize("fault", [FakeCut(part=0.5), FakeErrorEvent(after_events=6)], ids=["cut", "error"])
async def test_if_its_consumer_says_so_it_begins_anew_elsewhere(stage, fault):
    supervisor, _ = await stage((fault,), ())
    async with asked(supervisor, after_cut="restart") as stream:
        pieces = [piece async for piece in stream]
    (at,) = [number for number, piece in enumerate(pieces) if isinstance(piece, Restarted)]
    assert at > 0
    after = "".join(piece.text for piece in pieces[at + 1 :])
    assert after == stream.result.text == stream.text
    assert stream.result.provider == "alder-1"
    assert stream.result.result.cost > 0


async def test_a_call_of_a_tool_that_was_given_is_never_taken_back(stage):
    answers = (ScriptedAnswer(kind="tool", text='{"x": 1}'),)
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    supervisor, _ = await stage((FakeCut(part=0.7),), (), answers=answers)
    pieces = []
    with pytest.raises(StreamBroken):
        await read(asked(supervisor, after_cut="restart", tools=tools), pieces)
    assert any(isinstance(piece, ToolCallDelta) for piece in pieces)
    assert not any(isinstance(piece, Restarted) for piece in pieces)


async def test_silence_between_pieces_ends_it(stage):
    supervisor, _ = await stage((FakeStall(at="mid_stream", after_events=5),))
    with pytest.raises(StreamBroken, match="no chunk within"):
        await read(asked(supervisor, gap=0.2), [])
    assert await at_rest(supervisor)


async def test_the_provider_is_told_at_once_when_the_consumer_leaves(stage):
    supervisor, (server,) = await stage((), token_speed=20.0, output_tokens=400.0)
    async with asked(supervisor) as stream:
        async for _ in stream:
            break
    await server.until_idle()
    assert [call.cancelled for call in server.books.lines] == [True]
    assert await at_rest(supervisor)


async def test_a_stream_that_is_dropped_unclosed_ends(stage):
    supervisor, (server,) = await stage((), token_speed=20.0, output_tokens=400.0)

    async def drop():
        stream = asked(supervisor)
        await stream.__aenter__()
        async for _ in stream:
            break

    await drop()
    await server.until_idle()
    assert [call.cancelled for call in server.books.lines] == [True]
    assert await at_rest(supervisor)


async def test_a_consumer_that_takes_nothing_has_left(stage):
    supervisor, _ = await stage((), token_speed=0.0, output_tokens=2_000.0)
    async with asked(supervisor, patience=0.2) as stream:
        assert await anext(aiter(stream))
        while not await at_rest(supervisor):
            pass
    assert len(stream.text) < 20


async def test_an_answer_of_no_use_may_be_asked_for_elsewhere_and_is_paid(stage):
    supervisor, _ = await stage((FakeOddAnswer(answer="empty"),), ())
    options = RequestOptions(strategy="cheapest", on_bad_answer="next")
    result = await chat(supervisor, messages="Hello", options=options)
    assert (result.provider, result.result.attempts) == ("alder-1", 2)
    assert str(result.cost) == "$0.003"
    with pytest.raises(BadAnswer) as told:
        await chat(supervisor, messages="Hello", options=RequestOptions(strategy="cheapest"))
    assert told.value.reason == "empty"


async def test_all_that_fail_are_told(stage):
    supervisor, _ = await stage((FakeOutage(),), (FakeOutage(),))
    with pytest.raises(AllProvidersFailed):
        await read(asked(supervisor, timeout=1.0), [])


async def test_a_stream_of_a_provider_of_messages_is_given_as_a_chat_completion():
    config = FakeConfig(models=(FakeModel(name="m", token_speed=2_000.0, output_tokens=20.0),))
    async with fake_server(config) as server, ActorSystem("chats", log=False) as system:
        listing = compatible("m", preset="anthropic", base_url=f"{server.url}/v1", api_key="k", price="0.001")
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing])))
        async with chat_stream(supervisor, messages="Hello", max_tokens=50, seed=7) as stream:
            pieces = [piece async for piece in stream]
        whole = await chat(supervisor, messages="Hello", max_tokens=50)
    result = stream.result
    assert "".join(piece.text for piece in pieces) == result.text != ""
    assert (result.finish_reason, result.usage["completion_tokens"]) == ("stop", 20)
    assert result.result.output["object"] == "chat.completion"
    assert result.result.translated == ("seed: approximated (left out)",)
    assert whole.text
    assert whole.result.translated == ()


async def test_what_one_provider_cannot_express_is_served_by_one_that_can():
    config = FakeConfig(models=(FakeModel(name="m", output_tokens=20.0),))
    async with fake_server(config) as one, fake_server(config) as other, ActorSystem("chats", log=False) as system:
        listings = [
            compatible("m", preset="anthropic", base_url=f"{one.url}/v1", api_key="k", price="0.001", name="alder"),
            compatible("m", base_url=f"{other.url}/v1", price="0.002", name="birch"),
        ]
        supervisor = system.spawn(lambda: Supervisor(Market(providers=listings)))
        options = RequestOptions(strategy="cheapest")
        asked = {"messages": "Hello", "max_tokens": 50, "options": options}
        plain = await chat(supervisor, **asked)
        two = await chat(supervisor, **asked, n=2)
    assert (plain.provider, two.provider) == ("alder", "birch")
    assert len(two.result.output["choices"]) == 2
    assert [failure.provider for failure in two.result.failures] == ["alder"]
    assert (one.books.calls, two.result.translated) == (1, ())


async def test_no_failure_is_its_own_cause(stage):
    for fault in (FakeOutage(status=0), FakeOutage(status=500)):
        supervisor, _ = await stage((fault,), limit=0.2)
        for ask in (chat(supervisor, messages="Hello", timeout=1.0), read(asked(supervisor, timeout=1.0), [])):
            with pytest.raises(CallFailed) as failed:
                await ask
            seen = [failed.value]
            while (cause := seen[-1].__cause__) is not None:
                assert cause not in seen
                seen.append(cause)
