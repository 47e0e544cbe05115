"""Streams of each form that say the same: text and a tool, parallel tools, a refusal."""

from __future__ import annotations

CHAT_USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
USAGE = {"input_tokens": 3, "output_tokens": 5}


def chunk(reason=None, **delta):
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def piece(index, arguments, **more):
    function = {"arguments": arguments, **({"name": "f"} if more else {})}
    return chunk(tool_calls=[{"index": index, "function": function, **more}])


def chat(*chunks):
    return [chunk(role="assistant", content=""), *chunks, {"choices": [], "usage": CHAT_USAGE}, "[DONE]"]


def message(reason, *blocks):
    start = {"id": "c", "model": "m", "content": [], "usage": {"input_tokens": 3, "output_tokens": 1}}
    events = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for index, (block, deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    ended = {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 5}}
    return [*events, ended, {"type": "message_stop"}]


def block_of_text(*texts):
    return {"type": "text", "text": ""}, [{"type": "text_delta", "text": text} for text in texts]


def block_of_tool(identity, *pieces):
    block = {"type": "tool_use", "id": identity, "name": "f", "input": {}}
    return block, [{"type": "input_json_delta", "partial_json": one} for one in pieces]


def response(*items):
    head = {"id": "c", "object": "response", "model": "m", "status": "in_progress", "output": []}
    events, output = [{"type": "response.created", "response": head}], []
    for index, (item, whole, deltas) in enumerate(items):
        events.append({"type": "response.output_item.added", "output_index": index, "item": item})
        events += [{**delta, "output_index": index} for delta in deltas]
        events.append({"type": "response.output_item.done", "output_index": index, "item": whole})
        output.append(whole)
    done = {**head, "status": "completed", "output": output, "usage": {**USAGE, "total_tokens": 8}}
    return [*events, {"type": "response.completed", "response": done}]


def item_of_text(*texts, kind="output_text", field="text"):
    whole = {"type": "message", "role": "assistant", "content": [{"type": kind, field: "".join(texts)}]}
    return {**whole, "content": []}, whole, [{"type": f"response.{kind}.delta", "delta": text} for text in texts]


def item_of_tool(identity, *pieces):
    item = {"type": "function_call", "call_id": identity, "name": "f", "arguments": ""}
    deltas = [{"type": "response.function_call_arguments.delta", "delta": one} for one in pieces]
    return item, {**item, "arguments": "".join(pieces)}, deltas


STREAMS = {
    "chat": chat(
        chunk(reasoning_content="hm"),
        chunk(content="Hel"),
        chunk(content="lo"),
        piece(0, "", id="t", type="function"),
        piece(0, '{"a":1}'),
        chunk("tool_calls"),
    ),
    "responses": response(item_of_text("Hel", "lo"), item_of_tool("t", '{"a":', "1}")),
    "messages": message(
        "tool_use",
        (
            {"type": "thinking", "thinking": ""},
            [{"type": "thinking_delta", "thinking": "hm"}, {"type": "signature_delta", "signature": "s"}],
        ),
        block_of_text("Hel", "lo"),
        block_of_tool("t", '{"a":', "1}"),
    ),
}
TOOLS = {
    "chat": chat(
        piece(0, "", id="t", type="function"),
        piece(0, '{"a":1}'),
        piece(1, "", id="u", type="function"),
        piece(1, "{}"),
        chunk("tool_calls"),
    ),
    "responses": response(item_of_tool("t", '{"a":1}'), item_of_tool("u", "{}")),
    "messages": message("tool_use", block_of_tool("t", '{"a":1}'), block_of_tool("u", "{}")),
}
REFUSALS = {
    "chat": chat(chunk(refusal="No"), chunk(refusal="."), chunk("stop")),
    "responses": response(item_of_text("No", ".", kind="refusal", field="refusal")),
    "messages": message("refusal", block_of_text("No", ".")),
}
