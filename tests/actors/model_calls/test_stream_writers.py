"""Streams that come in one form and are handed on in another say the same."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.model_calls import (
    MalformedAnswer,
    ModelRequest,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    read_answer,
)
from actors.model_calls.answer import text_in
from actors.model_calls.answer_writers import usage_of
from actors.model_calls.assembly import assembler_of
from actors.model_calls.sse import ServerSentEvent
from actors.model_calls.stream_writers import stream_writer_of
from actors.model_calls.translation import translated
from tests.actors.model_calls.conversations import REQUESTS
from tests.actors.model_calls.streams import REFUSALS, STREAMS, TOOLS

PAIRS = [(form, to) for form in STREAMS for to in STREAMS if form != to]


def converted(stream, *, form, to):
    """The events of a provider of the form `to`, as the caller in `form` gets them."""
    sent = translated(ModelRequest(form=form, body=next(iter(REQUESTS[form].values()))), [to])
    assembler, writer = assembler_of(to), stream_writer_of(form)
    events, has_begun = [], False
    for one in stream:
        part = assembler.feed(ServerSentEvent("message", one if isinstance(one, str) else json.dumps(one)))
        for delta in part.deltas:
            if not has_begun:
                has_begun, body = True, assembler.body()
                events += writer.begin(text_in(body, "id"), text_in(body, "model"))
            events += writer.write(delta)
    body, _ = sent.answer(assembler.body())
    return events + writer.end(body), body


def assembled(events, form):
    assembler = assembler_of(form)
    deltas = []
    for event in [json.dumps(one) for one in events] + (["[DONE]"] if form == "chat" else []):
        deltas += assembler.feed(ServerSentEvent("message", event)).deltas
    assert assembler.is_complete
    return read_answer(form, assembler.body()), deltas


@pytest.mark.parametrize(("form", "to"), PAIRS)
@pytest.mark.parametrize("streams", [STREAMS, TOOLS, REFUSALS], ids=["text and tool", "parallel tools", "refusal"])
def test_a_stream_in_another_form_adds_up_to_the_same_answer(form, to, streams):
    events, body = converted(streams[to], form=form, to=to)
    got, _ = assembled(events, form)
    wanted = read_answer(form, body)
    if wanted.refusal and to == "messages":
        wanted = msgspec.structs.replace(wanted, text="No.")  # That it is a refusal came after its text.
    assert (got.text, got.tool_calls, got.finish_reason, got.model, got.id) == (
        wanted.text,
        wanted.tool_calls,
        wanted.finish_reason,
        wanted.model,
        wanted.id,
    )
    assert got.refusal == wanted.refusal
    assert usage_of(form, got) == usage_of(form, wanted)


def test_pieces_of_calls_that_come_by_turns_cannot_be_said_in_messages():
    writer = stream_writer_of("messages")
    writer.begin("m", "m")
    writer.write(ToolCallDelta(0, "a", "f", "{"))
    writer.write(ToolCallDelta(1, "b", "f", "{"))
    with pytest.raises(MalformedAnswer, match="by turns"):
        writer.write(ToolCallDelta(0, "", "", "}"))


DELTAS = st.one_of(
    st.builds(TextDelta, st.text(max_size=3)),
    st.builds(ReasoningDelta, st.text(max_size=3)),
    st.builds(RefusalDelta, st.text(max_size=3)),
    st.builds(ToolCallDelta, st.integers(0, 2), st.text(max_size=2), st.text(max_size=2), st.text(max_size=3)),
)


@given(form=st.sampled_from(list(STREAMS)), deltas=st.lists(DELTAS, max_size=12))
@settings(deadline=None)
def test_whatever_comes_each_delta_is_an_event_that_can_be_read_or_the_form_cannot_say_it(form, deltas):
    writer, assembler = stream_writer_of(form), assembler_of(form)
    events = writer.begin("c", "m")
    try:
        for delta in deltas:
            written = writer.write(delta)
            assert written
            events += written
        for event in events:
            assembler.feed(ServerSentEvent("message", json.dumps(event)))
    except MalformedAnswer:
        assert form == "messages"  # A tool's arguments must be JSON there, and calls come one after another.
        return
    said = "".join(one.text for one in deltas if isinstance(one, TextDelta))
    assert said in read_answer(form, assembler.body()).text or form != "chat"
    writer.end(assembler.body())


def test_embeddings_have_no_streams():
    with pytest.raises(ValueError, match="no streams"):
        stream_writer_of("embeddings")
