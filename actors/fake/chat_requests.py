"""Reads the body of a chat completion request. Pure.

Source of the fields: the OpenAI API reference, platform.openai.com/docs/api-reference/chat/create.
"""

from __future__ import annotations

from typing import Any

from actors.fake.asked import Asked, AskedTool, PromptReader, as_count, as_list, as_object, refuse_unknown, want

ROLES = frozenset({"developer", "system", "user", "assistant", "tool", "function"})
FIELDS = frozenset(
    """
    messages model audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens
    max_tokens metadata modalities moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key
    prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier seed
    service_tier stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity
    web_search_options
    """.split()  # noqa: SIM905 - as a list it reads worse.
)
"""What OpenAI knows; it refuses any other field."""


def read_chat(body: dict[str, Any], *, strict: bool) -> Asked:
    """Return what a chat completion asks for; `strict` refuses fields that OpenAI does not know.

    Raises `RequestRefused` for a body that is none.
    """
    if strict:
        refuse_unknown(body, FIELDS)
    want(isinstance(body.get("model"), str), "you must provide a model parameter", param="model")
    messages = as_list(body.get("messages"), "messages")
    want(messages, "Invalid 'messages': empty array. Expected an array with minimum length 1.", param="messages")
    asked = Asked(form="chat", model=body["model"], body=body)
    reader = PromptReader()
    asked.tools = read_tools(body, reader)
    for number, one in enumerate(messages):
        _read_message(as_object(one, f"messages[{number}]"), f"messages[{number}]", reader, asked)
    asked.text_bytes, asked.extra_tokens, asked.marks = reader.size_bytes, reader.extra_tokens, reader.marks
    _read_options(body, asked)
    return asked


def _read_options(body: dict[str, Any], asked: Asked) -> None:
    asked.stream = body.get("stream") is True
    options = body.get("stream_options")
    want(options is None or asked.stream, "The 'stream_options' parameter is only allowed when 'stream' is enabled.")
    asked.include_usage = options is not None and as_object(options, "stream_options").get("include_usage") is True
    newer, older = as_count(body, "max_completion_tokens"), as_count(body, "max_tokens")
    want(newer is None or older is None, "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not ok.")
    asked.max_tokens = newer if older is None else older
    asked.choices = as_count(body, "n") or 1
    stop = body.get("stop") or ()
    asked.stop = (stop,) if isinstance(stop, str) else tuple(stop)
    asked.logprobs = body.get("logprobs") is True
    asked.tool_choice = read_tool_choice(body.get("tool_choice"))
    asked.parallel = body.get("parallel_tool_calls") is not False
    asked.reasoning = body.get("reasoning_effort") not in {None, "none", "minimal"} or bool(body.get("reasoning"))
    asked.tenant = str(body.get("user") or body.get("safety_identifier") or "")
    form = body.get("response_format")
    if form is not None:
        asked.schema = read_schema(as_object(form, "response_format"))


def read_schema(form: dict[str, Any]) -> dict[str, Any] | None:
    """Return the schema of the answer that a response format asks for; None if it may be any text."""
    match form.get("type"):
        case "json_schema":
            return as_object(as_object(form.get("json_schema"), "response_format.json_schema").get("schema") or {}, "")
        case "json_object":
            return {}
        case other:
            want(other == "text", f"Invalid value: '{other}'.", param="response_format.type")
            return None


def read_tool_choice(choice: Any) -> str:
    """Return a choice of tools in one word: `auto`, `none`, `required` or `=NAME`."""
    if choice is None:
        return "auto"
    if isinstance(choice, str):
        want(choice in {"auto", "none", "required"}, f"Invalid value: '{choice}'.", param="tool_choice")
        return choice
    named = as_object(choice, "tool_choice")
    if named.get("type") == "allowed_tools":
        return str(as_object(named.get("allowed_tools", named), "tool_choice").get("mode", "auto"))
    inner = named.get(str(named.get("type"))) or named
    name = as_object(inner, "tool_choice").get("name")
    want(isinstance(name, str), "Missing required parameter: 'tool_choice.function.name'.", param="tool_choice")
    return f"={name}"


def read_tools(body: dict[str, Any], reader: PromptReader) -> tuple[AskedTool, ...]:
    """Return the tools of a chat completion request, and count them."""
    tools = body.get("tools")
    if not tools:
        return ()
    reader.data(tools)
    found: list[AskedTool] = []
    for number, one in enumerate(as_list(tools, "tools")):
        tool = as_object(one, f"tools[{number}]")
        kind = tool.get("type")
        want(kind in {"function", "custom"}, f"Invalid value: '{kind}'.", param=f"tools[{number}].type")
        inner = as_object(tool.get(str(kind)), f"tools[{number}].{kind}")
        name = inner.get("name")
        want(isinstance(name, str), f"Missing required parameter: 'tools[{number}].function.name'.", param="tools")
        found.append(AskedTool(str(name), inner.get("parameters") or {}, custom=kind == "custom"))
    return tuple(found)


def _read_message(message: dict[str, Any], at: str, reader: PromptReader, asked: Asked) -> None:
    role, content = message.get("role"), message.get("content")
    want(role in ROLES, f"Invalid value: '{role}'. Supported values are: {sorted(ROLES)}.", param=f"{at}.role")
    text = ""
    if isinstance(content, str):
        text = content
        reader.text(content)
    elif isinstance(content, list):
        text = "".join(_read_part(as_object(part, at), at, reader) for part in as_list(content, at))
    else:
        calls = message.get("tool_calls") or message.get("function_call") or message.get("refusal")
        want(role == "assistant" and calls, f"Invalid value for 'content': got {content!r}.", param=f"{at}.content")
    if message.get("tool_calls"):
        reader.data(message["tool_calls"])
    if role == "tool":
        want(message.get("tool_call_id"), f"Missing parameter '{at}.tool_call_id'.", param=f"{at}.tool_call_id")
        asked.tool_results += 1
    elif role == "user":
        asked.tool_results = 0
        asked.last_text = text
    reader.end_message()
    reader.mark()


def _read_part(part: dict[str, Any], at: str, reader: PromptReader) -> str:
    kind = part.get("type")
    if kind in {"text", "refusal"}:
        text = part.get(str(kind))
        want(isinstance(text, str), f"Missing required parameter: '{at}.content[].text'.", param=at)
        reader.text(str(text))
        return str(text)
    want(kind in {"image_url", "input_audio", "file"}, f"Invalid value: '{kind}'.", param=f"{at}.content[].type")
    reader.part(part)
    return ""
