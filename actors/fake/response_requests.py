"""Reads the body of a request for OpenAI's Responses. Pure.

Source of the fields: the OpenAI API reference, platform.openai.com/docs/api-reference/responses/create.
"""

from __future__ import annotations

from typing import Any

from actors.fake.asked import Asked, AskedTool, PromptReader, as_count, as_list, as_object, refuse_unknown, want
from actors.fake.chat_requests import read_schema, read_tool_choice

FIELDS = frozenset(
    """
    access_programs background background_options context_management conversation image include input instructions
    max_output_tokens max_tool_calls metadata model moderation parallel_tool_calls previous_response_id prompt
    prompt_cache_key prompt_cache_options prompt_cache_retention reasoning safety_identifier service_tier store stream
    stream_options temperature text tool_choice tools top_logprobs top_p truncation user
    """.split()  # noqa: SIM905 - as a list it reads worse.
)


def read_responses(body: dict[str, Any], *, strict: bool) -> Asked:
    """Return what a request for a response asks for. Raises `RequestRefused` for a body that is none."""
    if strict:
        refuse_unknown(body, FIELDS)
    want(isinstance(body.get("model"), str), "Missing required parameter: 'model'.", param="model")
    asked = Asked(form="responses", model=body["model"], body=body)
    reader = PromptReader()
    asked.tools = _read_tools(body, reader)
    if body.get("instructions"):
        reader.text(str(body["instructions"]))
    given = body.get("input")
    if isinstance(given, str):
        reader.text(given)
        asked.last_text = given
        reader.end_message()
        reader.mark()
    else:
        items = as_list(given, "input")
        want(items, "Invalid 'input': expected at least one item.", param="input")
        for number, item in enumerate(items):
            _read_item(as_object(item, f"input[{number}]"), f"input[{number}]", reader, asked)
    asked.text_bytes, asked.extra_tokens, asked.marks = reader.size_bytes, reader.extra_tokens, reader.marks
    asked.stream = body.get("stream") is True
    asked.background = body.get("background") is True
    want(
        not asked.background or body.get("store") is not False,
        "Background responses need 'store' to be true.",
        param="store",
    )
    asked.max_tokens = as_count(body, "max_output_tokens")
    asked.tool_choice = read_tool_choice(body.get("tool_choice"))
    asked.parallel = body.get("parallel_tool_calls") is not False
    effort = as_object(body.get("reasoning") or {}, "reasoning").get("effort")
    asked.reasoning = effort not in {None, "none", "minimal"}
    asked.tenant = str(body.get("user") or body.get("safety_identifier") or "")
    form = as_object(body.get("text") or {}, "text").get("format")
    if form is not None:
        form = as_object(form, "text.format")
        asked.schema = read_schema(form | {"json_schema": form})
    return asked


def _read_tools(body: dict[str, Any], reader: PromptReader) -> tuple[AskedTool, ...]:
    """Return the functions; tools that the server runs are counted alone."""
    found: list[AskedTool] = []
    for number, one in enumerate(as_list(body.get("tools") or [], "tools")):
        tool = as_object(one, f"tools[{number}]")
        reader.data(tool)
        if tool.get("type") == "function":
            want(isinstance(tool.get("name"), str), f"Missing required parameter: 'tools[{number}].name'.")
            found.append(AskedTool(tool["name"], tool.get("parameters") or {}))
    return tuple(found)


def _read_item(item: dict[str, Any], at: str, reader: PromptReader, asked: Asked) -> None:
    match item.get("type", "message"):
        case "message":
            want(item.get("role") in {"user", "assistant", "system", "developer"}, "Invalid role.", param=f"{at}.role")
            text = _read_content(item.get("content"), at, reader)
            if item["role"] == "user":
                asked.tool_results, asked.last_text = 0, text
        case "function_call_output":
            want(item.get("call_id"), f"Missing required parameter: '{at}.call_id'.", param=at)
            asked.tool_results += 1
            reader.data(item.get("output"))
        case "reasoning":
            pass  # The reasoning of earlier turns is left out.
        case _:
            reader.data(item)
    reader.end_message()
    reader.mark()


def _read_content(content: Any, at: str, reader: PromptReader) -> str:
    if isinstance(content, str):
        reader.text(content)
        return content
    texts: list[str] = []
    for one in as_list(content, f"{at}.content"):
        part = as_object(one, f"{at}.content")
        if part.get("type") in {"input_text", "output_text", "refusal"}:
            text = part.get("text", part.get("refusal"))
            want(isinstance(text, str), f"Missing required parameter: '{at}.content[].text'.", param=at)
            reader.text(str(text))
            texts.append(str(text))
        else:
            reader.part(part)
    return "".join(texts)
