"""Asks a model through a supervisor, and reads its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from actors.market.model_listing import CHAT
from actors.model_calls.answer import ModelAnswer, ToolCall, read_answer
from actors.model_calls.request import ModelRequest
from actors.money import Micros  # noqa: TC001 - msgspec resolves the annotations below.
from actors.spelling import unknown_name
from actors.supervisor.client import smart_request
from actors.supervisor.messages import SmartResult  # noqa: TC001 - as above.
from actors.supervisor.options import DEFAULT_OPTIONS, RequestOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.money import Amount
    from actors.supervisor.messages import SmartRequest
    from runtime import ActorRef


OPTIONS = (
    "messages",
    "model",
    "max_tokens",
    "options",
    "budget",
    "timeout",
    "account",
    "idempotency_key",
    "repurchase",
)
CHAT_FIELDS = frozenset(
    {
        "audio",
        "extra_body",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "metadata",
        "modalities",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_retention",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    }
)
"""The fields of a chat completion, as OpenAI documents them; a mistyped option must not be sent as one."""


class ChatResult(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a model, and what it took to get it.

    `model` is the one that answered, as its provider calls it. `finish_reason` is "stop", "length" or "tool_calls", or
    else the provider's own word. `cost` is in micro-units. `result` is the whole result, with the failures before it
    and, as `output`, the provider's own body.
    """

    text: str
    provider: str
    cost: Micros
    model: str
    finish_reason: str
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""
    usage: dict[str, Any] = {}
    result: SmartResult


async def chat(
    supervisor: ActorRef[SmartRequest],
    *,
    messages: str | Sequence[dict[str, Any]],
    model: str | None = None,
    max_tokens: int | None = None,
    options: RequestOptions = DEFAULT_OPTIONS,
    budget: Amount | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 - it travels as a deadline.
    account: str | None = None,
    idempotency_key: str | None = None,
    repurchase: bool = False,
    **fields: Any,
) -> ChatResult:
    """Have a model answer `messages`: a text, or the messages of a chat completion.

    `model` is a service of the market or the name of a model that it lists (None: the service "chat"). The other
    `fields` are those of a chat completion, such as `tools` or `temperature`; fields that only some providers know go
    into `extra_body`. `budget` and the rest are those of `smart_request`.

    Raises as that does, and `BadAnswer` if the answer is empty, filtered, refused or, although asked for, no JSON;
    `RequestOptions(on_bad_answer="next")` asks the next provider instead.
    """
    result = await smart_request(
        supervisor,
        service=service_of(model),
        input=chat_request(messages, max_tokens, fields),
        options=options,
        budget=budget,
        timeout=timeout,
        account=account,
        idempotency_key=idempotency_key,
        repurchase=repurchase,
    )
    return chat_result(read_answer("chat", result.output), result)


def chat_result(answer: ModelAnswer, result: SmartResult) -> ChatResult:
    """Return what a caller sees of an answer."""
    return ChatResult(
        text=answer.text,
        provider=result.provider,
        cost=result.cost,
        model=answer.model,
        finish_reason=answer.finish_reason,
        tool_calls=answer.tool_calls,
        reasoning=answer.reasoning,
        usage=answer.usage,
        result=result,
    )


def service_of(model: str | None) -> str:
    """Return the service that a model is asked for by; raises ValueError for a name that was left empty."""
    if model == "":
        raise ValueError("model must be the name of a model or of a service, or None for any model; got an empty text")
    return CHAT if model is None else model


def chat_request(
    messages: str | Sequence[dict[str, Any]], max_tokens: int | None, fields: dict[str, Any]
) -> ModelRequest:
    """Return what is asked of a model; raises TypeError or ValueError for what could never be sent."""
    if "stream" in fields:
        raise TypeError("a chat has no option 'stream': use chat_stream for a stream, chat for a whole answer")
    for field in fields:
        if field not in CHAT_FIELDS:
            raise TypeError(f"a chat has {unknown_name('option', field, (*OPTIONS, *CHAT_FIELDS))}")
    further: dict[str, Any] = fields.pop("extra_body", None) or {}
    if not isinstance(further, dict):
        raise TypeError(f"extra_body must be a dict of further fields, got {further!r:.100}")
    said = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    if not isinstance(said, list | tuple) or not all(isinstance(one, dict) for one in said):
        raise TypeError(f"messages must be a text, or a list of dicts with role and content, got {messages!r:.100}")
    bound = {} if max_tokens is None else {"max_tokens": max_tokens}
    return ModelRequest(form="chat", body={"messages": list(said), **fields, **further, **bound})
