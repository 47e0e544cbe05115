"""Requests that go out in another form than they came in, and their answers on the way back."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.model_calls import MalformedAnswer, ModelRequest, read_answer
from actors.model_calls.answer_writers import usage_of
from actors.model_calls.conversation import Text, Utterance
from actors.model_calls.field_table import NotExpressible, Remarks, sort_fields
from actors.model_calls.request_readers import read_request
from actors.model_calls.translation import translated
from tests.actors.model_calls.conversations import ANSWERS, CHATS, MARK, REQUESTS, chat_tool, text, tool, use, user

FORMS = ("chat", "responses", "messages")
PAIRS = [(form, to) for form in FORMS for to in FORMS if form != to]
TRIPS = [(form, to, name) for form, to in PAIRS for name in REQUESTS[form]]


def meaning(request, to):
    """What a request asks for: without bounds of the output, and each side's turns together."""
    remarks = Remarks()
    fields, _ = sort_fields(request.body, request.form, to, remarks)
    asked = read_request(request.form, request.body, fields, remarks)
    turns = []
    for turn in asked.turns:
        role = "system" if turn.role == "developer" else turn.role
        parts = [one for one in turn.parts if one != Text("")]
        if turns and turns[-1].role == role == "user":
            parts = [*turns.pop().parts, *parts]
        turns.append(Utterance(role, tuple(parts)))
    return {
        "turns": turns,
        "tools": [(one.name, one.description, one.parameters, bool(one.strict)) for one in asked.tools],
        "choice": asked.choice,
        "parallel": asked.parallel is not False,
        "schema": asked.schema,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "user": asked.user,
        "effort": asked.effort,
    }


@pytest.mark.parametrize(("form", "to", "name"), TRIPS)
def test_a_request_there_and_back_asks_for_the_same(form, to, name):
    body = REQUESTS[form][name]
    kept = copy.deepcopy(body)
    request = ModelRequest(form=form, body=body)
    sent = translated(request, [to])
    back = translated(sent.request, [form])
    first, last = meaning(request, to), meaning(back.request, to)
    if first["choice"] is None and not first["parallel"]:
        last["choice"] = None  # Messages says "auto" to say that calls are not parallel.
    assert last == first
    assert (sent.request.form, sent.asked, body) == (to, request, kept)
    if request.max_output is not None:
        assert sent.request.max_output == back.request.max_output == request.max_output


@pytest.mark.parametrize(("form", "to", "name"), TRIPS)
def test_an_answer_comes_back_in_the_form_of_the_request(form, to, name):
    sent = translated(ModelRequest(form=form, body=REQUESTS[form][name]), [to])
    body, told = sent.answer(ANSWERS[to])
    got, wanted = read_answer(form, body), read_answer(form, ANSWERS[form])
    assert (got.text, got.finish_reason, got.model, got.id) == ("I read.", "tool_calls", "true-model", "c-1")
    assert [(one.id, one.name, json.loads(one.arguments)) for one in got.tool_calls] == [
        ("c-9", "read", {"path": "e.py"})
    ]
    assert usage_of(form, got) == usage_of(form, wanted)
    assert told[: len(sent.told)] == sent.told


def test_sixty_requests_make_the_trip():
    assert len(TRIPS) == 60


@pytest.mark.parametrize("form", FORMS)
def test_a_form_that_is_spoken_is_kept(form):
    request = ModelRequest(form=form, body={"made_up": 1, **REQUESTS[form]["a coding agent"]})
    kept = translated(request, FORMS)
    assert kept.is_kept
    assert kept.request is request
    assert kept.answer(ANSWERS[form]) == (ANSWERS[form], ())


def test_a_coding_agents_conversation_in_the_words_of_messages():
    sent = translated(ModelRequest(form="chat", body=CHATS["a coding agent"]), ["messages"])
    body = sent.request.body
    assert body["system"] == "You write code."
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user", "assistant", "user"]
    assert body["messages"][1]["content"] == [
        text("I look."),
        use("c-1", "a.py"),
        use("c-2", "b.py"),
        use("c-3", "c.py"),
    ]
    assert body["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "c-1", "content": "one"},
        {"type": "tool_result", "tool_use_id": "c-2", "content": ""},
        {"type": "tool_result", "tool_use_id": "c-3", "content": "three"},
    ]
    assert body["tools"] == [tool("read"), tool("write")]
    assert (body["max_tokens"], body["tool_choice"]) == (4000, {"type": "auto"})
    assert body["output_config"] == {"effort": "high"}
    assert sent.told == (
        "cache_control: left out (price or speed only)",
        "reasoning_effort: approximated (the effort 'high' of Messages)",
    )


SIGNED = {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": "s"}, text("Hi")]}
HELLO = {"messages": [user("Hello")]}
BROKEN = {"id": "c", "type": "function", "function": {"name": "read", "arguments": '{"path": '}}
HISTORY = [user("Read"), {"role": "assistant", "tool_calls": [BROKEN]}]


@pytest.mark.parametrize(
    ("form", "to", "changes", "why"),
    [
        ("messages", "chat", {"messages": [user("Hi"), SIGNED, user("And?")]}, "signed thinking"),
        ("messages", "chat", {"messages": [user([{"type": "document", "source": {}}])]}, "document"),
        ("messages", "responses", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "server's own"),
        ("messages", "responses", {"top_k": 3}, "top_k"),
        ("messages", "responses", {"stop_sequences": ["x"]}, "stop_sequences"),
        ("messages", "chat", {"stop_sequences": list("abcde")}, "5 stop sequences"),
        ("messages", "chat", {"made_up": 1}, "made_up"),
        ("messages", "chat", {"messages": [user([text("Hi", made_up=1)])]}, "made_up"),
        ("messages", "chat", {"messages": [user("Hi"), {"role": "assistant", "content": "It is"}]}, "begun"),
        ("messages", "chat", {"tools": [tool("a", defer_loading=True)]}, "defer_loading"),
        ("chat", "messages", {"n": 2}, "'n'"),
        ("chat", "responses", {"n": True}, "'n'"),
        ("chat", "responses", {"logprobs": True}, "logprobs"),
        ("chat", "messages", {"logit_bias": {"7": 1}}, "logit_bias"),
        ("chat", "messages", {"messages": HISTORY, "tools": [chat_tool("read")]}, "no JSON"),
        ("chat", "messages", {"messages": [user([{"type": "file", "file": {}}])]}, "document"),
        ("chat", "messages", {"web_search_options": {}}, "web_search_options"),
        ("chat", "messages", {"tools": [{"type": "custom", "custom": {}}]}, "custom"),
        ("chat", "messages", {"messages": [{"role": "system", "content": "x"}]}, "only the system"),
        ("responses", "chat", {"previous_response_id": "r"}, "previous_response_id"),
        ("responses", "chat", {"tools": [{"type": "web_search"}]}, "server's own"),
        ("responses", "messages", {"input": [{"type": "reasoning", "encrypted_content": "s"}]}, "signed thinking"),
        ("responses", "messages", {"input": [{"type": "item_reference", "id": "x"}]}, "item_reference"),
        ("responses", "messages", {"store": True}, "store"),
    ],
)
def test_what_another_form_cannot_say_is_not_sent_in_it(form, to, changes, why):
    body = {**({"input": "Hello"} if form == "responses" else HELLO), "max_tokens": 10, **changes}
    if form == "responses":
        del body["max_tokens"]
    with pytest.raises(NotExpressible, match=why):
        translated(ModelRequest(form=form, body=body), [to])


def test_the_first_form_that_can_say_it_is_taken():
    request = ModelRequest(form="messages", body={**HELLO, "max_tokens": 5, "stop_sequences": ["x"]})
    assert translated(request, ["responses", "chat"]).request.form == "chat"
    with pytest.raises(NotExpressible, match="embeddings"):
        translated(ModelRequest(form="embeddings", body={"input": "x"}), FORMS)


@pytest.mark.parametrize(
    ("form", "to", "changes", "told"),
    [
        ("chat", "messages", {"temperature": 1.5}, "temperature: approximated (1 instead of 1.5"),
        ("chat", "messages", {"seed": 7}, "seed: approximated (left out)"),
        ("chat", "messages", {"service_tier": "flex"}, "service_tier: left out (price or speed only)"),
        ("chat", "messages", {"response_format": {"type": "json_object"}}, "response_format: approximated"),
        ("chat", "messages", {}, "max_tokens: approximated (4096"),
        ("messages", "chat", {"speed": "fast"}, "speed: left out"),
        ("messages", "chat", {"thinking": {"type": "adaptive"}}, "thinking: approximated"),
        ("messages", "chat", {"messages": [user([text("Hi", **MARK)])]}, "cache_control: left out"),
        ("messages", "chat", {"messages": [{**user("Hi"), "content": [text("Hi", citations=[{}])]}]}, "citations"),
    ],
)
def test_what_is_not_quite_the_same_is_told(form, to, changes, told):
    sent = translated(ModelRequest(form=form, body={**HELLO, **changes}), [to])
    assert any(one.startswith(told) for one in sent.told)
    assert sent.answer(ANSWERS[to])[1][: len(sent.told)] == sent.told


@pytest.mark.parametrize(("form", "to"), PAIRS)
def test_an_answer_that_was_translated_can_be_sent_back_in_the_history(form, to):
    body = copy.deepcopy(REQUESTS[form]["a coding agent"])
    thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
    given = copy.deepcopy(ANSWERS[to])
    if to == "messages":
        given["content"].insert(0, thinking)
    answer, _ = translated(ModelRequest(form=form, body=body), [to]).answer(given)
    match form:
        case "chat":
            body["messages"].append(answer["choices"][0]["message"])
            body["messages"].append({"role": "tool", "tool_call_id": "c-9", "content": "x"})
        case "responses":
            body["input"] += [*answer["output"], {"type": "function_call_output", "call_id": "c-9", "output": "x"}]
        case "messages":
            body["messages"].append({"role": "assistant", "content": answer["content"]})
            body["messages"].append(user([{"type": "tool_result", "tool_use_id": "c-9", "content": "x"}]))
    sent = translated(ModelRequest(form=form, body=body), [to])
    assert "c-9" in json.dumps(sent.request.body)
    assert "signature" not in json.dumps(sent.request.body)


def chat_answer(reason="stop", **message):
    return {**ANSWERS["chat"], "choices": [{"index": 0, "message": message, "finish_reason": reason}]}


@pytest.mark.parametrize(
    ("body", "reason", "blocks"),
    [
        (chat_answer(content="Hi"), "end_turn", ["Hi"]),
        (chat_answer("length", content="Hi"), "max_tokens", ["Hi"]),
        (chat_answer("content_filter", content=None), "refusal", []),
        (chat_answer(content=None, refusal="No."), "refusal", ["No."]),
        (chat_answer("strange", content="Hi"), "end_turn", ["Hi"]),
    ],
)
def test_the_reasons_of_the_end_in_the_words_of_messages(body, reason, blocks):
    sent = translated(ModelRequest(form="messages", body={**HELLO, "max_tokens": 5}), ["chat"])
    answer, told = sent.answer(body)
    assert (answer["stop_reason"], [block["text"] for block in answer["content"]]) == (reason, blocks)
    assert bool(told) == (body["choices"][0]["finish_reason"] == "strange")


@pytest.mark.parametrize(
    ("reason", "word", "is_refused"),
    [("end_turn", "stop", False), ("max_tokens", "length", False), ("refusal", "stop", True)],
)
def test_the_reasons_of_the_end_in_the_words_of_chat_completions(reason, word, is_refused):
    sent = translated(ModelRequest(form="chat", body=HELLO), ["messages"])
    answer, _ = sent.answer({**ANSWERS["messages"], "content": [text("Hi")], "stop_reason": reason})
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == word
    assert (choice["message"]["content"], choice["message"]["refusal"]) == (
        (None, "Hi") if is_refused else ("Hi", None)
    )


def test_a_call_whose_arguments_are_no_json_cannot_be_said_in_messages():
    sent = translated(ModelRequest(form="messages", body={**HELLO, "max_tokens": 5}), ["chat"])
    with pytest.raises(MalformedAnswer, match="no JSON"):
        sent.answer(chat_answer("tool_calls", content=None, tool_calls=[BROKEN]))


def test_usage_that_was_not_told_is_not_made_up_in_silence():
    sent = translated(ModelRequest(form="messages", body={**HELLO, "max_tokens": 5}), ["chat"])
    body = {name: value for name, value in chat_answer(content="Hi").items() if name != "usage"}
    answer, told = sent.answer(body)
    assert (answer["usage"]["input_tokens"], any(one.startswith("usage: ") for one in told)) == (0, True)


LEAVES = st.none() | st.booleans() | st.integers(-2, 5) | st.floats() | st.text(max_size=3)
PARTS = [part for body in REQUESTS.values() for part in json.dumps(list(body.values())).split('"')]
FIELDS = sorted({word for word in PARTS if word.isidentifier()})
NAMES = st.sampled_from(FIELDS) | st.text(max_size=3)
KINDS = st.sampled_from(FIELDS)
VALUES = st.recursive(
    LEAVES | KINDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=12
)


@given(data=st.data(), pair=st.sampled_from(PAIRS))
@settings(max_examples=100, deadline=None)
def test_no_request_makes_it_raise_anything_but_its_own_error(data, pair):
    form, to = pair
    body = copy.deepcopy(data.draw(st.sampled_from(list(REQUESTS[form].values()))))
    for _ in range(data.draw(st.integers(1, 3))):
        spoil(body, data)
    try:
        request = ModelRequest(form=form, body=body)
    except (TypeError, ValueError):
        return
    try:
        sent = translated(request, [to])
    except NotExpressible:
        return
    assert isinstance(sent.request, ModelRequest)


@given(data=st.data(), pair=st.sampled_from(PAIRS))
@settings(max_examples=100, deadline=None)
def test_no_answer_makes_it_raise_anything_but_its_own_error(data, pair):
    form, to = pair
    sent = translated(ModelRequest(form=form, body=next(iter(REQUESTS[form].values()))), [to])
    body = copy.deepcopy(ANSWERS[to])
    for _ in range(data.draw(st.integers(1, 3))):
        spoil(body, data)
    try:
        answer, _ = sent.answer(body)
    except MalformedAnswer:
        return
    read_answer(form, answer)


def spoil(value, data):
    """Put something else at a random place of a body."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = data.draw(st.sampled_from(keys) if keys else NAMES)
        inner = value[key] if keys else None
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            if keys or isinstance(value, dict):
                value[key] = data.draw(VALUES)
            return
        value = inner
