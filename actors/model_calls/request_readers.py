"""Reads what a request asks for, from the form of each protocol. Pure.

Raises nothing but `NotExpressible`: what cannot be read here can perhaps be read by a provider of that form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast, get_args

import msgspec

from actors.model_calls.conversation import (
    Called,
    Conversation,
    Declined,
    Image,
    Part,
    Result,
    Role,
    Schema,
    Text,
    Tool,
    ToolChoice,
    Utterance,
    tool_input,
)
from actors.model_calls.field_table import NotExpressible, list_of, part, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.model_calls.field_table import Remarks
    from actors.model_calls.request import Form

THINKING_BUDGETS = ((2048, "low"), (4096, "medium"))
"""Budgets of thinking in tokens, and the effort of those below; what is more is "high". The bounds are those with which
LiteLLM converts efforts (litellm/constants.py: 1024, 2048, 4096)."""
ROLES = get_args(Role)
KINDS_OF_CHOICE = {"auto": "auto", "none": "none", "required": "any", "any": "any", "tool": "one", "function": "one"}


def read_request(form: Form, body: dict[str, Any], fields: set[str], remarks: Remarks) -> Conversation:
    """Return what the `fields` of a body ask for. Raises `NotExpressible`."""
    asked = {name: value for name, value in body.items() if name in fields}
    return READERS[form](asked, remarks)


def _bounds(asked: dict[str, Any], *names: str) -> int | None:
    return next((asked[name] for name in names if asked.get(name) is not None), None)


def _number(asked: dict[str, Any], name: str) -> float | None:
    value = asked.get(name)
    if value is not None and type(value) not in {int, float}:
        raise NotExpressible(f"{name} is no number, but {value!r:.100}")
    return value


def _optional_text(asked: dict[str, Any], name: str) -> str | None:
    value = asked.get(name)
    return None if value is None else text_of(value, name)


def _flag(value: object, where: str) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise NotExpressible(f"{where} is neither true nor false, but {value!r:.100}")
    return value


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise NotExpressible(f"{where} is no JSON object, but {value!r:.100}")
    return cast("dict[str, Any]", value)


def _called(name: object, identity: object, arguments: object) -> Called:
    """Return a call of a tool; its arguments must be a JSON object."""
    told, text = text_of(name, "the name of a called tool"), text_of(arguments, "the arguments of a tool")
    return Called(text_of(identity, "the id of a call"), told, tool_input(told, text, NotExpressible), text)


def _choice(value: object, name: object = "") -> ToolChoice:
    kind = KINDS_OF_CHOICE.get(value) if isinstance(value, str) else None
    if kind is None:
        raise NotExpressible(f"a tool_choice of the kind {value!r:.100} is unknown to other forms")
    return ToolChoice(cast("Any", kind), text_of(name, "the name in tool_choice") if kind == "one" else "")


def _tool(fields: dict[str, Any], schema: str) -> Tool:
    parameters = fields.get(schema)
    return Tool(
        text_of(fields.get("name"), "the name of a tool"),
        _optional_text(fields, "description"),
        None if parameters is None else _object(parameters, f"{schema} of a tool"),
        _flag(fields.get("strict"), "strict of a tool"),
    )


def _schema(fields: dict[str, Any]) -> Schema:
    return Schema(
        _object(fields.get("schema"), "the schema of the answer"),
        text_of(fields.get("name") or "answer", "the name of a schema"),
        _flag(fields.get("strict"), "strict of a schema"),
    )


# --- Chat completions ---


def _read_chat(asked: dict[str, Any], remarks: Remarks) -> Conversation:
    stop = asked.get("stop")
    stops = [stop] if isinstance(stop, str) else list_of(stop or [], "stop")
    choice = asked.get("tool_choice")
    if isinstance(choice, dict):
        chosen = cast("dict[str, Any]", choice)
        choice = _choice(chosen.get("type"), _object(chosen.get("function"), "tool_choice").get("name"))
    elif choice is not None:
        choice = _choice(choice)
    return Conversation(
        turns=[_chat_turn(message, remarks) for message in list_of(asked.get("messages"), "messages")],
        tools=[_chat_tool(tool, remarks) for tool in list_of(asked.get("tools", []), "tools")],
        choice=choice,
        parallel=_flag(asked.get("parallel_tool_calls"), "parallel_tool_calls"),
        schema=_chat_format(asked.get("response_format"), remarks),
        max_output=_bounds(asked, "max_completion_tokens", "max_tokens"),
        temperature=_number(asked, "temperature"),
        top_p=_number(asked, "top_p"),
        stop=[text_of(one, "stop") for one in stops],
        user=_optional_text(asked, "user"),
        effort=_optional_text(asked, "reasoning_effort"),
        verbosity=_optional_text(asked, "verbosity"),
    )


def _chat_turn(message: object, remarks: Remarks) -> Utterance:
    fields = part(message, "chat_message", "a message", remarks)
    role = fields.get("role")
    if role == "tool":
        identity = text_of(fields.get("tool_call_id"), "tool_call_id")
        answered = _chat_parts(fields.get("content"), remarks)
        if not all(isinstance(one, Text) for one in answered):
            raise NotExpressible("the result of a tool holds what is no text")
        return Utterance("user", (Result(identity, cast("tuple[Text, ...]", answered)),))
    if role not in ROLES:
        raise NotExpressible(f"a message of the role {role!r:.100}")
    parts = list(_chat_parts(fields.get("content"), remarks)) if fields.get("content") is not None else []
    if refusal := fields.get("refusal"):
        parts.append(Declined(text_of(refusal, "refusal")))
    for call in list_of(fields.get("tool_calls") or [], "tool_calls"):
        if role != "assistant":
            raise NotExpressible(f"calls of tools in a message of the role {role!r}")
        known = part(call, "chat_call", "a call of a tool", remarks)
        function = part(known.get("function"), "chat_called", "the function of a call", remarks)
        parts.append(_called(function.get("name"), known.get("id"), function.get("arguments")))
    return Utterance(cast("Role", role), tuple(parts))


def _chat_parts(content: object, remarks: Remarks) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (Text(content),)
    return tuple(_chat_part(one, remarks) for one in list_of(content, "the content of a message"))


def _chat_part(given: object, remarks: Remarks) -> Part:
    match _object(given, "a part of a message").get("type"):
        case "text":
            return Text(text_of(part(given, "chat_text", "a text", remarks).get("text"), "a text"))
        case "refusal":
            return Declined(text_of(part(given, "chat_refusal", "a refusal", remarks).get("refusal"), "a refusal"))
        case "image_url":
            shown = part(given, "chat_image", "an image", remarks)
            image = part(shown.get("image_url"), "chat_image_url", "an image", remarks)
            detail = text_of(image.get("detail") or "auto", "the detail of an image")
            return Image(text_of(image.get("url"), "the URL of an image"), detail)
        case kind:
            raise NotExpressible(f"a part of the kind {kind!r:.100} in a message, such as a document or sound")


def _chat_tool(tool: object, remarks: Remarks) -> Tool:
    fields = part(tool, "chat_tool", "a tool", remarks)
    if fields.get("type", "function") != "function":
        raise NotExpressible(f"a tool of the kind {fields['type']!r:.100}")
    return _tool(part(fields.get("function"), "chat_function", "the function of a tool", remarks), "parameters")


def _chat_format(wanted: object, remarks: Remarks) -> Schema | None:
    if wanted is None:
        return None
    fields = _object(wanted, "response_format")
    match fields.get("type"):
        case "text":
            return None
        case "json_object":
            return Schema(None)
        case "json_schema":
            return _schema(part(fields.get("json_schema"), "chat_schema", "the schema of the answer", remarks))
        case kind:
            raise NotExpressible(f"a response_format of the kind {kind!r:.100}")


# --- Responses ---


def _read_responses(asked: dict[str, Any], remarks: Remarks) -> Conversation:
    for wanted in list_of(asked.get("include", []), "include"):
        if wanted != "reasoning.encrypted_content":
            raise NotExpressible(f"include of {wanted!r:.100}")
        remarks.approximated("include", "the answer has no encrypted reasoning")
    turns: list[Utterance] = []
    if (instructions := asked.get("instructions")) is not None:
        turns.append(Utterance("system", (Text(text_of(instructions, "instructions")),)))
    given = asked.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else list_of(given, "input")
    for item in items:
        turns += _responses_item(item, remarks)
    words = part(asked.get("text") or {}, "responses_words", "text", remarks)
    thinking = part(asked.get("reasoning") or {}, "responses_thinking", "reasoning", remarks)
    choice = asked.get("tool_choice")
    if isinstance(choice, dict):
        chosen = cast("dict[str, Any]", choice)
        choice = _choice(chosen.get("type"), chosen.get("name"))
    elif choice is not None:
        choice = _choice(choice)
    return Conversation(
        turns=_joined(turns),
        tools=[_responses_tool(tool, remarks) for tool in list_of(asked.get("tools", []), "tools")],
        choice=choice,
        parallel=_flag(asked.get("parallel_tool_calls"), "parallel_tool_calls"),
        schema=_responses_format(words.get("format"), remarks),
        max_output=_bounds(asked, "max_output_tokens"),
        temperature=_number(asked, "temperature"),
        top_p=_number(asked, "top_p"),
        user=_optional_text(asked, "user"),
        effort=_optional_text(thinking, "effort"),
        verbosity=_optional_text(words, "verbosity"),
    )


def _joined(turns: list[Utterance]) -> list[Utterance]:
    """Put the items of one answer together: its text and its calls of tools are items of their own."""
    joined: list[Utterance] = []
    for turn in turns:
        before = joined[-1] if joined else None
        if before is not None and before.role == turn.role == "assistant":
            joined[-1] = Utterance("assistant", before.parts + turn.parts)
        else:
            joined.append(turn)
    return joined


def _responses_item(item: object, remarks: Remarks) -> list[Utterance]:
    match _object(item, "an item of the input").get("type", "message"):
        case "message":
            fields = part(item, "responses_message", "a message", remarks)
            role, content = fields.get("role"), fields.get("content")
            if role not in ROLES:
                raise NotExpressible(f"a message of the role {role!r:.100}")
            if isinstance(content, str):
                return [Utterance(cast("Role", role), (Text(content),))]
            parts = [_responses_part(one, remarks) for one in list_of(content, "the content of a message")]
            return [Utterance(cast("Role", role), tuple(parts))]
        case "function_call":
            call = part(item, "responses_call", "a call of a tool", remarks)
            return [Utterance("assistant", (_called(call.get("name"), call.get("call_id"), call.get("arguments")),))]
        case "function_call_output":
            fields = part(item, "responses_result", "the result of a tool", remarks)
            output = fields.get("output")
            parts = (
                [Text(output)]
                if isinstance(output, str)
                else [_responses_part(one, remarks) for one in list_of(output, "the output of a tool")]
            )
            if not all(isinstance(one, Text | Image) for one in parts):
                raise NotExpressible("the result of a tool holds what is neither text nor image")
            return [Utterance("user", (Result(text_of(fields.get("call_id"), "call_id"), cast("Any", tuple(parts))),))]
        case "reasoning":
            if _object(item, "reasoning").get("encrypted_content"):
                raise NotExpressible("signed thinking in the history")
            part(item, "responses_reasoning", "the reasoning", remarks)
            return []
        case kind:
            raise NotExpressible(f"an item of the kind {kind!r:.100}, such as a call of the server's own tools")


def _responses_part(given: object, remarks: Remarks) -> Part:
    match _object(given, "a part of a message").get("type"):
        case "input_text" | "output_text" | "text":
            return Text(text_of(part(given, "responses_text", "a text", remarks).get("text"), "a text"))
        case "refusal":
            fields = part(given, "responses_refusal", "a refusal", remarks)
            return Declined(text_of(fields.get("refusal"), "a refusal"))
        case "input_image":
            image = part(given, "responses_image", "an image", remarks)
            detail = text_of(image.get("detail") or "auto", "the detail of an image")
            return Image(text_of(image.get("image_url"), "the URL of an image"), detail)
        case kind:
            raise NotExpressible(f"a part of the kind {kind!r:.100} in a message, such as a document")


def _responses_tool(tool: object, remarks: Remarks) -> Tool:
    kind = _object(tool, "a tool").get("type", "function")
    if kind != "function":
        raise NotExpressible(f"a tool of the kind {kind!r:.100}, such as one of the server's own")
    read = _tool(part(tool, "responses_tool", "a tool", remarks), "parameters")
    if read.strict is None:
        remarks.approximated("strict of tools", "not strict, which is what Responses assumes if nothing is said")
    return read


def _responses_format(wanted: object, remarks: Remarks) -> Schema | None:
    if wanted is None:
        return None
    match _object(wanted, "text.format").get("type"):
        case "text":
            return None
        case "json_object":
            return Schema(None)
        case "json_schema":
            return _schema(part(wanted, "responses_schema", "the schema of the answer", remarks))
        case kind:
            raise NotExpressible(f"a text.format of the kind {kind!r:.100}")


# --- Messages ---


def _read_messages(asked: dict[str, Any], remarks: Remarks) -> Conversation:
    turns = [_messages_turn(one, remarks) for one in list_of(asked.get("messages"), "messages")]
    if (system := asked.get("system")) is not None:
        turns.insert(0, Utterance("system", _messages_parts(system, remarks)))
    output = part(asked.get("output_config") or {}, "messages_output", "output_config", remarks)
    wanted = output.get("format") or asked.get("output_format")
    schema = None
    if wanted is not None:
        fields = part(wanted, "messages_schema", "the format of the output", remarks)
        if fields.get("type") != "json_schema":
            raise NotExpressible(f"a format of the output of the kind {fields.get('type')!r:.100}")
        schema = _schema({"schema": fields.get("schema"), "strict": True})
    choice, parallel = None, None
    if (chosen := asked.get("tool_choice")) is not None:
        fields = part(chosen, "messages_choice", "tool_choice", remarks)
        choice = _choice(fields.get("type"), fields.get("name"))
        if _flag(fields.get("disable_parallel_tool_use"), "disable_parallel_tool_use"):
            parallel = False
    user = part(asked.get("metadata") or {}, "messages_metadata", "metadata", remarks)
    return Conversation(
        turns=turns,
        tools=[_messages_tool(tool, remarks) for tool in list_of(asked.get("tools", []), "tools")],
        choice=choice,
        parallel=parallel,
        schema=schema,
        max_output=_bounds(asked, "max_tokens"),
        temperature=_number(asked, "temperature"),
        top_p=_number(asked, "top_p"),
        stop=[text_of(one, "stop_sequences") for one in list_of(asked.get("stop_sequences", []), "stop_sequences")],
        user=_optional_text(user, "user_id"),
        effort=_optional_text(output, "effort") or _effort_of(asked.get("thinking"), remarks),
    )


def _effort_of(thinking: object, remarks: Remarks) -> str | None:
    if thinking is None:
        return None
    fields = part(thinking, "messages_thinking", "thinking", remarks)
    match fields.get("type"):
        case "disabled":
            return "none"
        case "adaptive":
            remarks.approximated("thinking", "as much as the model does by default")
            return None
        case "enabled":
            budget = fields.get("budget_tokens")
            if type(budget) is not int:
                raise NotExpressible(f"a budget of thinking of {budget!r:.100}")
            effort = next((effort for below, effort in THINKING_BUDGETS if budget < below), "high")
            remarks.approximated("thinking", f"the effort {effort!r} for a budget of {budget} tokens")
            return effort
        case kind:
            raise NotExpressible(f"thinking of the kind {kind!r:.100}")


def _messages_turn(message: object, remarks: Remarks) -> Utterance:
    fields = part(message, "messages_message", "a message", remarks)
    role = fields.get("role")
    if role not in ("user", "assistant", "system"):
        raise NotExpressible(f"a message of the role {role!r:.100}")
    parts = _messages_parts(fields.get("content"), remarks)
    of_the_other = Called if role != "assistant" else Result
    if any(isinstance(one, of_the_other) for one in parts):
        raise NotExpressible(f"a message of the role {role!r} with what only another role says")
    return Utterance(cast("Role", role), parts)


def _messages_parts(content: object, remarks: Remarks) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (Text(content),)
    return tuple(_messages_part(one, remarks) for one in list_of(content, "the content of a message"))


def _messages_part(given: object, remarks: Remarks) -> Part:
    match _object(given, "a block").get("type"):
        case "text":
            return Text(text_of(part(given, "messages_text", "a text", remarks).get("text"), "a text"))
        case "image":
            shown = part(given, "messages_image", "an image", remarks)
            return Image(_url_of(part(shown.get("source"), "messages_source", "an image", remarks)))
        case "tool_use":
            fields = part(given, "messages_call", "a call of a tool", remarks)
            asked = _object(fields.get("input"), "the input of a tool")
            try:
                text = msgspec.json.encode(asked).decode()
            except (TypeError, ValueError, RecursionError, OverflowError) as error:
                raise NotExpressible("the input of a tool is no JSON") from error
            return Called(
                text_of(fields.get("id"), "the id of a call"), text_of(fields.get("name"), "a tool's name"), asked, text
            )
        case "tool_result":
            fields = part(given, "messages_result", "the result of a tool", remarks)
            content = fields.get("content")
            parts = () if content is None else _messages_parts(content, remarks)
            if not all(isinstance(one, Text | Image) for one in parts):
                raise NotExpressible("the result of a tool holds what is neither text nor image")
            is_error = bool(_flag(fields.get("is_error"), "is_error"))
            return Result(text_of(fields.get("tool_use_id"), "tool_use_id"), cast("Any", parts), is_error)
        case "thinking" | "redacted_thinking":
            raise NotExpressible("signed thinking in the history")
        case kind:
            raise NotExpressible(f"a block of the kind {kind!r:.100}, such as a document or a tool of the server's own")


def _url_of(source: dict[str, Any]) -> str:
    match source.get("type"):
        case "url":
            return text_of(source.get("url"), "the URL of an image")
        case "base64":
            kind, data = source.get("media_type"), source.get("data")
            return f"data:{text_of(kind, 'media_type')};base64,{text_of(data, 'the data of an image')}"
        case kind:
            raise NotExpressible(f"an image from a source of the kind {kind!r:.100}")


def _messages_tool(tool: object, remarks: Remarks) -> Tool:
    kind = _object(tool, "a tool").get("type") or "custom"
    if kind != "custom":
        raise NotExpressible(f"a tool of the kind {kind!r:.100}, such as one of the server's own")
    return _tool(part(tool, "messages_tool", "a tool", remarks), "input_schema")


READERS: dict[Form, Callable[[dict[str, Any], Remarks], Conversation]] = {
    "chat": _read_chat,
    "responses": _read_responses,
    "messages": _read_messages,
}
