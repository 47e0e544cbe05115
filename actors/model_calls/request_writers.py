"""Writes what a request asks for in the form of each protocol. Pure. Raises nothing but `NotExpressible`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from actors.model_calls.conversation import Called, Conversation, Declined, Image, Part, Result, Text, Utterance
from actors.model_calls.field_table import NotExpressible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from actors.model_calls.conversation import Schema, Tool
    from actors.model_calls.field_table import Remarks
    from actors.model_calls.request import Form

DATA_URL = re.compile(r"data:(image/(?:jpeg|png|gif|webp));base64,", re.IGNORECASE)
"""The images that Messages takes: docs.claude.com/en/docs/build-with-claude/vision."""
BAD_IN_ID = re.compile(r"[^a-zA-Z0-9_-]")
MOST_STOPS = 4
"""The stop sequences of a chat completion: platform.openai.com/docs/api-reference/chat/create."""
LEAST_OUTPUT = 4096
"""Messages must have a bound of the output. Without any, it is this: no model of Anthropic's writes less at most
(docs.claude.com/en/docs/about-claude/models)."""
JSON_ONLY = "Answer with one JSON object and nothing else."
EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}


def write_request(form: Form, asked: Conversation, remarks: Remarks) -> dict[str, Any]:
    """Return the body that asks for the same in another form. Raises `NotExpressible`."""
    turns = asked.turns
    if not turns:
        raise NotExpressible("a conversation without any message")
    if turns[-1].role == "assistant":
        raise NotExpressible("an answer that its caller has begun, which the model is to continue")
    return {name: value for name, value in WRITERS[form](asked, remarks).items() if value is not None}


def _text(parts: Iterable[Part]) -> str:
    return "".join(one.text for one in parts if isinstance(one, Text | Declined))


def _only_text(turn: Utterance) -> str:
    if not all(isinstance(one, Text) for one in turn.parts):
        raise NotExpressible(f"a message of the role {turn.role!r} with what is no text")
    return "\n\n".join(one.text for one in turn.parts if isinstance(one, Text))


# --- Chat completions ---


def _write_chat(asked: Conversation, remarks: Remarks) -> dict[str, Any]:
    if len(asked.stop) > MOST_STOPS:
        raise NotExpressible(f"{len(asked.stop)} stop sequences, of which a chat completion has at most {MOST_STOPS}")
    messages: list[dict[str, Any]] = []
    for turn in asked.turns:
        messages += _chat_messages(turn, remarks)
    choice: Any = None
    if asked.choice is not None:
        words = {"auto": "auto", "none": "none", "any": "required"}
        chosen = {"type": "function", "function": {"name": asked.choice.name}}
        choice = words.get(asked.choice.kind, chosen)
    schema = asked.schema
    wanted = None
    if schema is not None:
        described = {"name": schema.name, "schema": schema.schema, **_strict(schema)}
        wanted = {"type": "json_object"} if schema.schema is None else {"type": "json_schema", "json_schema": described}
    return {
        "messages": messages,
        "tools": [{"type": "function", "function": _function(tool)} for tool in asked.tools] or None,
        "tool_choice": choice,
        "parallel_tool_calls": asked.parallel,
        "response_format": wanted,
        "max_completion_tokens": asked.max_output,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "stop": asked.stop or None,
        "user": asked.user,
        "reasoning_effort": asked.effort,
        "verbosity": asked.verbosity,
    }


def _strict(of: Tool | Schema) -> dict[str, Any]:
    return {} if of.strict is None else {"strict": of.strict}


def _function(tool: Tool) -> dict[str, Any]:
    fields = {"name": tool.name, "description": tool.description, "parameters": tool.parameters, "strict": tool.strict}
    return {name: value for name, value in fields.items() if value is not None}


def _chat_messages(turn: Utterance, remarks: Remarks) -> list[dict[str, Any]]:
    if turn.role == "assistant":
        return [_chat_answer(turn, remarks)]
    results = [one for one in turn.parts if isinstance(one, Result)]
    rest = [one for one in turn.parts if not isinstance(one, Result)]
    if results and any(isinstance(one, Result) for one in turn.parts[len(results) :]):
        remarks.approximated("messages", "the results of tools go before what else their message says")
    messages: list[dict[str, Any]] = []
    for result in results:
        if not all(isinstance(one, Text) for one in result.parts):
            raise NotExpressible("an image in the result of a tool")
        if result.is_error:
            remarks.approximated("is_error", "the result of the tool is sent without the mark")
        messages.append({"role": "tool", "tool_call_id": result.id, "content": _text(result.parts)})
    if rest or not results:
        content: Any = [_chat_part(one) for one in rest]
        if all(isinstance(one, Text) for one in rest) and len(rest) <= 1:
            content = _text(rest)
        elif turn.role != "user" and not all(isinstance(one, Text) for one in rest):
            raise NotExpressible(f"a message of the role {turn.role!r} with what is no text")
        messages.append({"role": turn.role, "content": content})
    return messages


def _chat_part(one: Part) -> dict[str, Any]:
    match one:
        case Text(text):
            return {"type": "text", "text": text}
        case Declined(text):
            return {"type": "refusal", "refusal": text}
        case Image(url, detail):
            return {"type": "image_url", "image_url": {"url": url, **({"detail": detail} if detail != "auto" else {})}}
        case _:
            raise NotExpressible("a call of a tool in a message that is no answer")


def _chat_answer(turn: Utterance, remarks: Remarks) -> dict[str, Any]:
    calls = [one for one in turn.parts if isinstance(one, Called)]
    said = [one for one in turn.parts if not isinstance(one, Called)]
    if not all(isinstance(one, Text | Declined) for one in said):
        raise NotExpressible("an answer in the history with what is neither text nor a call of a tool")
    if any(not isinstance(one, Called) for one in turn.parts[len(said) :]):
        remarks.approximated("messages", "the calls of tools go after the text of their answer")
    declined = "".join(one.text for one in said if isinstance(one, Declined))
    message: dict[str, Any] = {"role": "assistant", "content": None}
    texts = [one for one in said if isinstance(one, Text)]
    if texts:
        message["content"] = _text(texts)
    if declined:
        message["refusal"] = declined
    if calls:
        message["tool_calls"] = [
            {"id": one.id, "type": "function", "function": {"name": one.name, "arguments": one.arguments}}
            for one in calls
        ]
    return message


# --- Responses ---


def _write_responses(asked: Conversation, remarks: Remarks) -> dict[str, Any]:
    if asked.stop:
        raise NotExpressible("stop sequences")
    turns, instructions = asked.turns, None
    if turns and turns[0].role == "system":
        turns, instructions = turns[1:], _only_text(turns[0])
    items: list[dict[str, Any]] = []
    for turn in turns:
        items += _responses_items(turn, remarks)
    choice: Any = None
    if asked.choice is not None:
        words = {"auto": "auto", "none": "none", "any": "required"}
        choice = words.get(asked.choice.kind, {"type": "function", "name": asked.choice.name})
    schema, words = asked.schema, dict[str, Any]()
    if schema is not None and schema.schema is None:
        words["format"] = {"type": "json_object"}
    elif schema is not None:
        words["format"] = {"type": "json_schema", "name": schema.name, "schema": schema.schema, **_strict(schema)}
    if asked.verbosity is not None:
        words["verbosity"] = asked.verbosity
    return {
        "instructions": instructions,
        "input": items,
        # What is not said to be strict is so in Responses, but in no other form.
        "tools": [
            {"type": "function", "parameters": None, **_function(tool), "strict": bool(tool.strict)}
            for tool in asked.tools
        ]
        or None,
        "tool_choice": choice,
        "parallel_tool_calls": asked.parallel,
        "text": words or None,
        "max_output_tokens": asked.max_output,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "user": asked.user,
        "reasoning": None if asked.effort is None else {"effort": asked.effort},
    }


def _responses_items(turn: Utterance, remarks: Remarks) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    said: list[dict[str, Any]] = []

    def end_message() -> None:
        if said:
            # An answer in a list of parts would have to have the id that its provider gave it; a text needs none.
            content = "".join(one["text"] for one in said) if turn.role == "assistant" else said.copy()
            items.append({"type": "message", "role": turn.role, "content": content})
            said.clear()

    for one in turn.parts:
        match one:
            case Text(text):
                said.append({"type": "input_text", "text": text})
            case Declined(text):
                remarks.approximated("refusal", "a refusal in the history is sent as text")
                said.append({"type": "input_text", "text": text})
            case Image():
                if turn.role == "assistant":
                    raise NotExpressible("an image in an answer of the history")
                said.append(_responses_image(one))
            case Called(identity, name, _, arguments):
                end_message()
                items.append({"type": "function_call", "call_id": identity, "name": name, "arguments": arguments})
            case Result():
                end_message()
                items.append(_responses_result(one, remarks))
    end_message()
    return items


def _responses_image(image: Image) -> dict[str, Any]:
    return {"type": "input_image", "image_url": image.url, "detail": image.detail}


def _responses_result(result: Result, remarks: Remarks) -> dict[str, Any]:
    if result.is_error:
        remarks.approximated("is_error", "the result of the tool is sent without the mark")
    output: Any = _text(result.parts)
    if not all(isinstance(one, Text) for one in result.parts):
        output = [
            _responses_image(one) if isinstance(one, Image) else {"type": "input_text", "text": one.text}
            for one in result.parts
        ]
    return {"type": "function_call_output", "call_id": result.id, "output": output}


# --- Messages ---


def _write_messages(asked: Conversation, remarks: Remarks) -> dict[str, Any]:
    system, messages = _claude_turns(asked, remarks)
    output, thinking = _output_of(asked, system, remarks), None
    if asked.effort == "none":
        thinking = {"type": "disabled"}
    if asked.verbosity is not None:
        remarks.approximated("verbosity")
    if asked.max_output is None:
        remarks.approximated("max_tokens", f"{LEAST_OUTPUT}, as the form must have a bound")
    return {
        "system": "\n\n".join(system) or None,
        "messages": messages,
        "tools": [_claude_tool(tool) for tool in asked.tools] or None,
        "tool_choice": _claude_choice(asked),
        "output_config": output or None,
        "thinking": thinking,
        "max_tokens": asked.max_output or LEAST_OUTPUT,
        "temperature": _temperature_of(asked, remarks),
        "top_p": asked.top_p,
        "stop_sequences": asked.stop or None,
        "metadata": None if asked.user is None else {"user_id": asked.user},
    }


def _claude_turns(asked: Conversation, remarks: Remarks) -> tuple[list[str], list[dict[str, Any]]]:
    """Return what the system says, and the messages of the others, who take turns."""
    system: list[str] = []
    messages: list[dict[str, Any]] = []
    for turn in asked.turns:
        if turn.role in {"system", "developer"}:
            if messages:
                remarks.approximated("messages", "what the system says in mid-conversation goes to its beginning")
            system.append(_only_text(turn))
            continue
        blocks = [block for one in turn.parts for block in _block(one, remarks)]
        if messages and messages[-1]["role"] == turn.role:
            messages[-1]["content"] += blocks  # Results of parallel calls are blocks of one message.
        else:
            messages.append({"role": turn.role, "content": blocks})
    if any(block["type"] == "tool_use" for message in messages for block in message["content"]) and not asked.tools:
        raise NotExpressible("calls of tools in the history of a request that declares no tools")
    if not messages:
        raise NotExpressible("a conversation in which only the system speaks")
    if not all(message["content"] for message in messages):
        raise NotExpressible("a message without any content")
    return system, messages


def _output_of(asked: Conversation, system: list[str], remarks: Remarks) -> dict[str, Any]:
    output: dict[str, Any] = {}
    if asked.schema is not None and asked.schema.schema is None:
        system.append(JSON_ONLY)
        remarks.approximated("response_format", "the model is told to answer in JSON")
    elif asked.schema is not None:
        output["format"] = {"type": "json_schema", "schema": asked.schema.schema}
    if asked.effort is not None and asked.effort != "none":
        if asked.effort not in EFFORTS:
            raise NotExpressible(f"an effort of reasoning of {asked.effort!r:.100}")
        output["effort"] = EFFORTS[asked.effort]
        remarks.approximated("reasoning_effort", f"the effort {output['effort']!r} of Messages")
    return output


def _temperature_of(asked: Conversation, remarks: Remarks) -> float | None:
    if asked.temperature is not None and asked.temperature > 1:
        remarks.approximated("temperature", f"1 instead of {asked.temperature}, the most that Messages takes")
        return 1.0
    return asked.temperature


def _claude_tool(tool: Tool) -> dict[str, Any]:
    written: dict[str, Any] = {
        "name": tool.name,
        "input_schema": tool.parameters if tool.parameters is not None else {"type": "object", "properties": {}},
        **_strict(tool),
    }
    return written if tool.description is None else {**written, "description": tool.description}


def _claude_choice(asked: Conversation) -> dict[str, Any] | None:
    choice: dict[str, Any] | None = None
    if asked.choice is not None:
        kind = {"auto": "auto", "none": "none", "any": "any"}.get(asked.choice.kind)
        choice = {"type": kind} if kind else {"type": "tool", "name": asked.choice.name}
    if asked.parallel is False and asked.tools:
        choice = choice or {"type": "auto"}
        if choice["type"] != "none":
            choice["disable_parallel_tool_use"] = True
    return choice


def _block(one: Part, remarks: Remarks) -> list[dict[str, Any]]:
    match one:
        case Text(text):
            return [{"type": "text", "text": text}] if text else []  # An empty block is refused.
        case Declined(text):
            remarks.approximated("refusal", "a refusal in the history is sent as text")
            return [{"type": "text", "text": text}] if text else []
        case Image(url, detail):
            if detail != "auto":
                remarks.approximated("detail")
            return [{"type": "image", "source": _source_of(url)}]
        case Called(identity, name, given):
            return [{"type": "tool_use", "id": _tool_id(identity, remarks), "name": name, "input": given}]
        case Result(identity, parts, is_error):
            content: Any = [block for inner in parts for block in _block(inner, remarks)]
            if all(isinstance(inner, Text) for inner in parts):
                content = _text(parts)
            marked = {"is_error": True} if is_error else {}
            return [{"type": "tool_result", "tool_use_id": _tool_id(identity, remarks), "content": content, **marked}]


def _tool_id(identity: str, remarks: Remarks) -> str:
    """Return an id of a call as Messages takes it: of letters, digits, "_" and "-" alone."""
    written = BAD_IN_ID.sub("_", identity)
    if written != identity:
        remarks.approximated("tool_call_id", "characters that ids of Messages have not are sent as _")
    return written


def _source_of(url: str) -> dict[str, Any]:
    if url.startswith(("http://", "https://")):
        return {"type": "url", "url": url}
    found = DATA_URL.match(url)
    if found is None:
        raise NotExpressible(f"an image that is neither at a URL nor a JPEG, PNG, GIF or WebP: {url!r:.60}")
    return {"type": "base64", "media_type": found.group(1).lower(), "data": url[found.end() :]}


WRITERS: dict[Form, Callable[[Conversation, Remarks], dict[str, Any]]] = {
    "chat": _write_chat,
    "responses": _write_responses,
    "messages": _write_messages,
}
