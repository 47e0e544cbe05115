"""Streams are put together to the bodies that the same calls answer without a stream."""

from __future__ import annotations

import json
import random
import sys
import time

import pytest

from actors.model_calls.answer import MalformedAnswer, read_answer
from actors.model_calls.assembly import assembler_of
from actors.model_calls.deltas import ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta
from actors.model_calls.sse import EventDecoder

CHAT = [
    {"id": "c-1", "model": "m", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
    {"id": "c-1", "model": "m", "choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]},
    {"id": "c-1", "model": "m", "choices": [{"index": 0, "delta": {"content": "Hel"}}]},
    {"id": "c-1", "model": "m", "choices": [{"index": 0, "delta": {"content": "lo"}}]},
    {
        "choices": [
            {"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f", "arguments": ""}}]}}
        ]
    },
    {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":1}'}}]}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}},
]
MESSAGES = [
    {"type": "message_start", "message": {"id": "m-1", "model": "m", "content": [], "usage": {"input_tokens": 3}}},
    {"type": "ping"},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "content_block_stop", "index": 1},
    {
        "type": "content_block_start",
        "index": 2,
        "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}},
    },
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"a":'}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "1}"}},
    {"type": "content_block_stop", "index": 2},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}},
    {"type": "message_stop"},
]
RESPONSE = {
    "id": "r-1",
    "object": "response",
    "model": "m",
    "status": "completed",
    "output": [
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]},
        {"type": "function_call", "call_id": "t", "name": "f", "arguments": '{"a":1}'},
    ],
    "usage": {"input_tokens": 3, "output_tokens": 5},
}
RESPONSES = [
    {"type": "response.created", "response": {"id": "r-1", "model": "m", "status": "in_progress", "output": []}},
    {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "content": []}},
    {"type": "response.output_text.delta", "output_index": 0, "delta": "Hel"},
    {"type": "response.output_text.delta", "output_index": 0, "delta": "lo"},
    {
        "type": "response.output_item.added",
        "output_index": 1,
        "item": {"type": "function_call", "call_id": "t", "name": "f", "arguments": ""},
    },
    {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": '{"a":1}'},
    {"type": "response.completed", "response": RESPONSE},
]
STREAMS = {"chat": [*CHAT, "[DONE]"], "messages": MESSAGES, "responses": RESPONSES}


def events_of(stream):
    decoder = EventDecoder()
    text = "".join(f"data: {one if isinstance(one, str) else json.dumps(one)}\n\n" for one in stream)
    return decoder.feed(text.encode())


@pytest.mark.parametrize("form", STREAMS)
def test_a_whole_stream_gives_the_body_of_a_plain_answer(form):
    assembler = assembler_of(form)
    deltas = [delta for event in events_of(STREAMS[form]) for delta in assembler.feed(event).deltas]
    assert assembler.is_complete
    answer = read_answer(form, assembler.body())
    assert (answer.text, answer.finish_reason, answer.model) == ("Hello", "tool_calls", "m")
    assert [(call.id, call.name, json.loads(call.arguments)) for call in answer.tool_calls] == [("t", "f", {"a": 1})]
    assert answer.usage
    assert "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)) == "Hello"
    assert "".join(delta.arguments for delta in deltas if isinstance(delta, ToolCallDelta)) == '{"a":1}'
    assert any(isinstance(delta, ReasoningDelta) for delta in deltas) == (form != "responses")


@pytest.mark.parametrize("form", STREAMS)
def test_a_stream_that_is_cut_leaves_what_came_and_is_not_complete(form):
    events = events_of(STREAMS[form])
    for cut in range(len(events)):
        assembler = assembler_of(form)
        deltas = [delta for event in events[:cut] for delta in assembler.feed(event).deltas]
        assert not assembler.is_complete
        text = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
        if deltas:
            assert read_answer(form, assembler.body()).text == text


def test_a_chat_that_has_finished_may_end_without_its_last_event():
    assembler = assembler_of("chat")
    events = events_of(CHAT)
    for event in events[:-2]:
        assembler.feed(event)
        assert not assembler.may_end
    assembler.feed(events[-2])
    assert assembler.may_end


def test_what_an_event_gave_does_not_change_afterwards():
    assembler = assembler_of("responses")
    parts = [assembler.feed(event) for event in events_of(RESPONSES)]
    assert [part.data for part in parts] == RESPONSES


@pytest.mark.parametrize(
    ("form", "event"),
    [
        ("chat", {"error": {"message": "overloaded", "code": 529}}),
        ("chat", {"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]}),
        ("messages", {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
        ("responses", {"type": "error", "code": "server_error", "message": "it failed"}),
        ("responses", {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "no"}}}),
    ],
)
def test_an_error_in_the_stream_is_told(form, event):
    (sent,) = events_of([event])
    assert assembler_of(form).feed(sent).error is not None


def test_a_refusal_is_told_as_it_comes():
    (event,) = events_of([{"choices": [{"index": 0, "delta": {"refusal": "I will not"}}]}])
    assert assembler_of("chat").feed(event).deltas == (RefusalDelta("I will not"),)


def garbage(rng, depth=0):
    kinds = [None, True, 1, -1, 1e300, "", "text", "[DONE]", [], {}]
    if depth < 3 and rng.random() < 0.6:
        names = [
            "choices",
            "delta",
            "index",
            "type",
            "item",
            "response",
            "content",
            "tool_calls",
            "function",
            "message",
        ]
        return {name: garbage(rng, depth + 1) for name in rng.sample(names, 4)}
    if depth < 3 and rng.random() < 0.3:
        return [garbage(rng, depth + 1) for _ in range(2)]
    return rng.choice(kinds)


@pytest.mark.parametrize("form", STREAMS)
def test_no_event_makes_it_raise_anything_but_that_it_is_malformed(form):
    rng = random.Random(form)
    for _ in range(2_000):
        assembler = assembler_of(form)
        stream = [rng.choice(STREAMS[form]) if rng.random() < 0.6 else garbage(rng) for _ in range(4)]
        for one in stream:
            if isinstance(one, dict) and rng.random() < 0.5:
                one = {**one, rng.choice([*one, "type"]): garbage(rng)}  # noqa: PLW2901
            try:
                for event in events_of([one]):
                    assembler.feed(event)
                read_answer(form, assembler.body())
            except MalformedAnswer:
                break


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_events_are_decoded_wherever_the_chunks_are_cut(end):
    text = f"\ufeff: note{end}{end}event: a{end}data: one{end}data:two{end}{end}id: 7{end}data: Grüße{end}{end}data"
    raw = text.encode()
    whole = EventDecoder().feed(raw)
    assert [(event.event, event.data) for event in whole] == [("a", "one\ntwo"), ("message", "Grüße")]
    for cut in range(len(raw)):
        decoder = EventDecoder()
        assert decoder.feed(raw[:cut]) + decoder.feed(raw[cut:]) == whole


def test_an_event_that_never_ends_is_malformed():
    decoder = EventDecoder(max_event_bytes=1_000)
    line = b"data: " + b"x" * 50 + b"\n"
    with pytest.raises(ValueError, match="1000 bytes"):
        decoder.feed(line * 100 + b"data:")


def test_a_long_line_in_many_chunks_is_searched_once():
    decoder, started = EventDecoder(), time.process_time()
    for _ in range(2_000):
        assert decoder.feed(b"x" * 1_000) == []
    assert len(decoder.feed(b"\ndata: 1\r") + decoder.feed(b"\n") + decoder.feed(b"\r") + decoder.feed(b"\n")) == 1
    assert time.process_time() - started < 1.0


def deltas_of(form, *events):
    assembler = assembler_of(form)
    return [delta for event in events_of(events) for delta in assembler.feed(event).deltas], assembler


def test_an_index_that_is_null_is_that_of_one_that_is_left_out():
    call = {"index": None, "id": "t", "function": {"name": "f", "arguments": "{}"}}
    deltas, assembler = deltas_of("chat", {"choices": [{"index": None, "delta": {"tool_calls": [call]}}]})
    assert deltas == [ToolCallDelta(0, "t", "f", "{}")]
    assert assembler.body()["choices"][0]["index"] == 0


def test_a_text_that_comes_in_parts_is_a_text():
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    deltas, assembler = deltas_of("chat", {"choices": [{"index": 0, "delta": {"content": parts}}]})
    assert deltas == [TextDelta("Hello")]
    assert read_answer("chat", assembler.body()).text == "Hello"


def test_an_error_for_a_finish_reason_is_none_on_which_its_receiver_may_have_acted():
    _, assembler = deltas_of(
        "chat", *({"choices": [{"delta": {"content": "Hi"}, "finish_reason": reason}]} for reason in (None, "error"))
    )
    assert not assembler.is_committed


def test_an_empty_delta_is_no_piece():
    started = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    empty = [{"type": "text_delta", "text": ""}, {"type": "thinking_delta", "thinking": ""}]
    events = ({"type": "content_block_delta", "index": 0, "delta": delta} for delta in empty)
    assert deltas_of("messages", started, *events)[0] == []


def tool_delta(arguments):
    return {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]}}]}


@pytest.mark.parametrize(
    ("parts", "is_whole"),
    [
        (['{"a": "}"', "}"], True),
        (['{"a": "}"'], False),
        (['{"a": "\\', '"}'], False),
        (['{"a": "\\', '"}"', "}"], True),
        (["{}"], True),
        (["", ""], False),
        (['{"a": [{}', "]"], False),
    ],
)
def test_a_call_of_a_tool_is_whole_once_its_last_bracket_has_come(parts, is_whole):
    _, assembler = deltas_of("chat", *map(tool_delta, parts))
    assert assembler.is_committed == is_whole


def chat_text(text):
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


def text_delta(text):
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


def response_delta(number):
    kind = ("output_text", "refusal")[number % 2]
    return {"type": f"response.{kind}.delta", "output_index": 0, "delta": "x" * 50}


BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}


@pytest.mark.parametrize(
    ("form", "first", "more"),
    [
        ("chat", [], lambda _: chat_text("x" * 50)),
        ("chat", [tool_delta('{"a": "')], lambda _: tool_delta('}" ' + "x" * 50 + '"}')),
        ("messages", [BLOCK], lambda _: text_delta("x" * 50)),
        (
            "messages",
            [BLOCK],
            lambda number: {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "citations_delta", "citation": {"n": number}},
            },
        ),
        ("responses", [], response_delta),
    ],
    ids=["text", "arguments", "message", "citations", "response"],
)
def test_each_piece_of_a_long_answer_costs_the_same(form, first, more):
    def cost(count):
        assembler = assembler_of(form)
        fed = list(events_of([*first, *(more(number) for number in range(count))]))
        counted = 0

        def count_calls(*_):
            nonlocal counted
            counted += 1

        sys.setprofile(count_calls)
        try:
            for event in fed:
                assembler.feed(event)
                assert assembler.is_committed in (True, False)
        finally:
            sys.setprofile(None)
        started = time.process_time()
        body = assembler.body()
        return counted, time.process_time() - started, body

    few, _, _ = cost(100)
    many, seconds, body = cost(2_000)
    assert many < 22 * few
    assert seconds < 0.1
    assert len(json.dumps(body)) > 2_000 * 10


@pytest.mark.parametrize(
    ("form", "events"),
    [
        ("chat", [{"choices": [{"index": 1, "delta": {"content": "x" * 500}}]}]),
        ("chat", [{"pad": "x" * 500}]),
        (
            "messages",
            [
                {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "citations_delta", "citation": "x" * 500},
                },
            ],
        ),
        ("responses", [{"type": "response.output_item.added", "output_index": 7, "item": {"pad": "x" * 500}}]),
    ],
    ids=["another choice", "a new field", "a citation", "an item"],
)
def test_whatever_is_kept_is_counted(form, events):
    assembler = assembler_of(form)
    parts = [assembler.feed(event) for event in events_of(events)]
    assert 500 <= sum(part.written + part.kept for part in parts) < 800


def test_what_is_replaced_is_counted_once():
    assembler = assembler_of("responses")
    text = [{"type": "response.output_text.delta", "output_index": 0, "delta": "x" * 50}] * 20
    item = {"type": "message", "content": [{"type": "output_text", "text": "x" * 1_000}]}
    done = {"type": "response.output_item.done", "output_index": 0, "item": item}
    parts = [assembler.feed(event) for event in events_of([*text, done, done, done])]
    assert 1_000 <= sum(part.written + part.kept for part in parts) < 1_200
