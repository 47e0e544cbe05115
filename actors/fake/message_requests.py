"""Reads the body of a request for Anthropic's Messages. Pure.

Source of the fields: Anthropic's API reference, platform.claude.com/docs/en/api/messages.
"""

from __future__ import annotations

from typing import Any

from actors.fake.asked import Asked, AskedTool, PromptReader, as_count, as_list, as_object, refuse_unknown, want

FIELDS = frozenset(
    """
    max_tokens messages model cache_control container context_management diagnostics inference_geo mcp_servers metadata
    output_config output_format service_tier speed stop_sequences stream system temperature thinking tool_choice tools
    top_k top_p user_profile_id workspace_id betas
    """.split()  # noqa: SIM905 - as a list it reads worse.
)
LEAST_THINKING = 1024


def read_messages(body: dict[str, Any], *, strict: bool) -> Asked:
    """Return what a request for a message asks for. Raises `RequestRefused` for a body that is none."""
    want(as_count(body, "max_tokens") is not None, "max_tokens: Field required", param="max_tokens")
    asked = read_prompt(body, strict=strict)
    asked.max_tokens = as_count(body, "max_tokens")
    asked.stream = body.get("stream") is True
    asked.stop = tuple(as_list(body.get("stop_sequences") or [], "stop_sequences"))
    metadata = body.get("metadata")
    asked.tenant = "" if metadata is None else str(as_object(metadata, "metadata").get("user_id") or "")
    _read_choice(body, asked)
    _read_thinking(body, asked)
    form = as_object(body.get("output_config") or {}, "output_config").get("format") or body.get("output_format")
    if form is not None:
        asked.schema = as_object(as_object(form, "output_config.format").get("schema"), "output_config.format.schema")
    return asked


def read_prompt(body: dict[str, Any], *, strict: bool) -> Asked:
    """Return the prompt of a request, which is what its tokens are counted by."""
    if strict:
        refuse_unknown(body, FIELDS)
    want(isinstance(body.get("model"), str), "model: Field required", param="model")
    messages = as_list(body.get("messages"), "messages")
    want(messages, "messages: at least one message is required", param="messages")
    asked = Asked(form="messages", model=body["model"], body=body)
    reader = PromptReader()
    asked.tools = _read_tools(body, reader)
    _read_blocks(body.get("system") or "", "system", reader, asked)
    for number, one in enumerate(messages):
        _read_message(as_object(one, f"messages.{number}"), f"messages.{number}", reader, asked)
    if body.get("cache_control"):
        _mark(body, reader)
    asked.text_bytes, asked.extra_tokens, asked.marks = reader.size_bytes, reader.extra_tokens, reader.marks
    return asked


def _mark(block: dict[str, Any], reader: PromptReader) -> None:
    control = block.get("cache_control")
    if control:
        reader.mark(hour=as_object(control, "cache_control").get("ttl") == "1h")


def _read_tools(body: dict[str, Any], reader: PromptReader) -> tuple[AskedTool, ...]:
    """Return the tools that the caller runs; those that the server runs are counted alone."""
    found: list[AskedTool] = []
    for number, one in enumerate(as_list(body.get("tools") or [], "tools")):
        tool = as_object(one, f"tools.{number}")
        want(isinstance(tool.get("name"), str), f"tools.{number}.name: Field required", param="tools")
        reader.data({name: value for name, value in tool.items() if name != "cache_control"})
        _mark(tool, reader)
        if tool.get("type") in {None, "custom"}:
            found.append(AskedTool(tool["name"], as_object(tool.get("input_schema"), f"tools.{number}.input_schema")))
    return tuple(found)


def _read_message(message: dict[str, Any], at: str, reader: PromptReader, asked: Asked) -> None:
    role = message.get("role")
    want(role in {"user", "assistant", "system"}, f"{at}.role: Input should be 'user' or 'assistant'", param=at)
    results, text = _read_blocks(message.get("content"), f"{at}.content", reader, asked)
    if role == "user" and results:
        asked.tool_results += results
    elif role == "user":
        asked.tool_results, asked.last_text = 0, text
    reader.end_message()


def _read_blocks(content: Any, at: str, reader: PromptReader, asked: Asked) -> tuple[int, str]:
    """Count a content, and return the number of tool results in it and its text."""
    if isinstance(content, str):
        reader.text(content)
        return 0, content
    results, texts = 0, list[str]()
    for number, one in enumerate(as_list(content, at)):
        block = as_object(one, f"{at}.{number}")
        match block.get("type"):
            case "text":
                want(isinstance(block.get("text"), str), f"{at}.{number}.text: Field required", param=at)
                reader.text(block["text"])
                texts.append(block["text"])
            case "image" | "document" | "search_result" | "container_upload":
                reader.part(block.get("source"))
            case "tool_result":
                want(block.get("tool_use_id"), f"{at}.{number}.tool_use_id: Field required", param=at)
                results += 1
                _read_blocks(block.get("content") or "", f"{at}.{number}.content", reader, asked)
            case "tool_use":
                reader.data([block.get("name"), block.get("input")])
            case "thinking":
                want(block.get("signature"), f"{at}.{number}.signature: Field required", param=at)
            case str():
                reader.data({name: value for name, value in block.items() if name != "cache_control"})
            case _:
                want(condition=False, message=f"{at}.{number}.type: Field required", param=at)
        _mark(block, reader)
    return results, "".join(texts)


def _read_choice(body: dict[str, Any], asked: Asked) -> None:
    choice = as_object(body.get("tool_choice") or {"type": "auto"}, "tool_choice")
    words = {"auto": "auto", "any": "required", "none": "none", "tool": f"={choice.get('name')}"}
    want(choice.get("type") in words, "tool_choice.type: Input should be 'auto', 'any', 'tool' or 'none'")
    asked.tool_choice = words[choice["type"]]
    asked.parallel = not choice.get("disable_parallel_tool_use")


def _read_thinking(body: dict[str, Any], asked: Asked) -> None:
    thinking = as_object(body.get("thinking") or {"type": "disabled"}, "thinking")
    asked.reasoning = thinking.get("type") in {"enabled", "adaptive"}
    if thinking.get("type") != "enabled":
        return
    budget = as_count(thinking, "budget_tokens", least=LEAST_THINKING)
    want(budget is not None, "thinking.enabled.budget_tokens: Field required", param="thinking")
    want(
        asked.max_tokens is None or (budget or 0) < asked.max_tokens,
        "`max_tokens` must be greater than `thinking.budget_tokens`.",
        param="max_tokens",
    )
