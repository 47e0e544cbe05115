"""What the facts of a call are named in a span: the semantic conventions for generative AI, and names of our own.

The conventions are data, old and new beside each other, because they are still in development. Sources: those of
v1.36.0 (github.com/open-telemetry/semantic-conventions, docs/gen-ai/gen-ai-spans.md) and the latest ones
(github.com/open-telemetry/semantic-conventions-genai, docs/gen-ai/client-inference.md and client-embeddings.md, as of
2026-11). Neither has a name for what a call costs, so that is told by names that begin with "understudy.".
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from actors.tariffs.usage import Usage
    from actors.transports.called_model import CalledModel

OPT_IN, LATEST_VALUE = "OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai_latest_experimental"
"""The environment variable, a list of values with commas, and the value that asks for the latest conventions."""

Attributes: TypeAlias = dict[str, Any]


class Conventions(msgspec.Struct, frozen=True, kw_only=True):
    """The names of one version of the conventions; a fact without a name is left out."""

    version: str
    provider: str
    """The attribute that names the provider of a model."""
    providers: dict[str, str]
    """Values of it that differ from those of `PROVIDERS`."""
    stream: str | None = None
    first_piece: str | None = None
    cache_read: str | None = None
    cache_write: str | None = None
    reasoning: str | None = None


OLD = Conventions(
    version="1.36.0",
    provider="gen_ai.system",
    providers={"azure.ai.openai": "az.ai.openai", "x_ai": "xai", "moonshot_ai": "moonshot"},
)
"""What is told unless the environment asks for the latest conventions, as these demand."""
LATEST = Conventions(
    version="latest",
    provider="gen_ai.provider.name",
    providers={},
    stream="gen_ai.request.stream",
    first_piece="gen_ai.response.time_to_first_chunk",
    cache_read="gen_ai.usage.cache_read.input_tokens",
    cache_write="gen_ai.usage.cache_write.input_tokens",
    reasoning="gen_ai.usage.reasoning.output_tokens",
)

PROVIDERS = {
    "api.openai.com": "openai",
    "openai.azure.com": "azure.ai.openai",
    "api.anthropic.com": "anthropic",
    "amazonaws.com": "aws.bedrock",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "api.cohere.com": "cohere",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral_ai",
    "api.moonshot.ai": "moonshot_ai",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
}
"""The well-known names of providers, by their hosts or by the domains of these."""

REQUEST_FIELDS = {
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "max_output_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
}
"""What of the body of a request is told: numbers alone, and no text of a caller."""


def conventions_of(environment: Mapping[str, str] = os.environ) -> Conventions:
    """Return the conventions that the environment asks for.

    >>> conventions_of({"OTEL_SEMCONV_STABILITY_OPT_IN": "http, gen_ai_latest_experimental"}).version
    'latest'
    >>> conventions_of({}).version
    '1.36.0'
    """
    asked = {one.strip() for one in environment.get(OPT_IN, "").split(",")}
    return LATEST if LATEST_VALUE in asked else OLD


def well_known(host: str | None) -> str | None:
    """Return the name of the provider at a host; None if the conventions have none.

    >>> well_known("acme.openai.azure.com"), well_known("notapi.x.ai"), well_known("127.0.0.1")
    ('azure.ai.openai', None, None)
    """
    while host:
        if host in PROVIDERS:
            return PROVIDERS[host]
        host = host.partition(".")[2]
    return None


def request_attributes(
    conventions: Conventions, called: CalledModel, asked: object, *, provider: str, streams: bool
) -> Attributes:
    """Return what is told of a call of a model before it is made; `provider` is how our listing names it."""
    form = getattr(asked, "form", "chat")
    body = getattr(asked, "body", asked)
    name = well_known(called.speaks_as) or provider
    attributes: Attributes = {
        "gen_ai.operation.name": "embeddings" if form == "embeddings" else "chat",
        "gen_ai.request.model": called.model,
        conventions.provider: conventions.providers.get(name, name),
    }
    if called.host is not None:
        attributes["server.address"] = called.host
        if called.port is not None:
            attributes["server.port"] = called.port
    if streams and conventions.stream is not None:
        attributes[conventions.stream] = True
    if isinstance(body, dict):
        attributes.update(_numbers(cast("dict[str, Any]", body)))
    return attributes


def _numbers(body: dict[str, Any]) -> Iterator[tuple[str, int | float]]:
    for field, name in REQUEST_FIELDS.items():
        value = body.get(field)
        if type(value) is int or type(value) is float:
            yield name, value


def response_attributes(output: object, usage: Usage | None, conventions: Conventions) -> Attributes:
    """Return what is told of the answer of a model: which one gave it, why it ended, and its tokens; none of its text.

    >>> told = response_attributes({"id": "r1", "model": "m-2", "choices": [{"finish_reason": "stop"}]}, None, OLD)
    >>> told == {
    ...     "gen_ai.response.id": "r1",
    ...     "gen_ai.response.model": "m-2",
    ...     "gen_ai.response.finish_reasons": ("stop",),
    ... }
    True
    """
    attributes: Attributes = {}
    if isinstance(output, dict):
        body = cast("dict[str, Any]", output)
        for field, name in (("id", "gen_ai.response.id"), ("model", "gen_ai.response.model")):
            if isinstance(value := body.get(field), str):
                attributes[name] = value
        if reasons := tuple(finish_reasons(body)):
            attributes["gen_ai.response.finish_reasons"] = reasons
    if usage is not None and not usage.is_empty:
        attributes["gen_ai.usage.input_tokens"] = usage.all_input
        attributes["gen_ai.usage.output_tokens"] = usage.all_output
        counts = (
            (conventions.cache_read, usage.cache_read),
            (conventions.cache_write, usage.cache_write + usage.cache_write_1h),
            (conventions.reasoning, usage.reasoning),
        )
        attributes.update((name, count) for name, count in counts if name is not None and count)
    return attributes


def finish_reasons(body: Mapping[str, Any]) -> Iterable[str]:
    """Yield why each answer in a body ended, in the words of its protocol.

    >>> list(finish_reasons({"stop_reason": "end_turn"})), list(finish_reasons({"status": "completed"}))
    (['end_turn'], ['completed'])
    """
    choices = body.get("choices")
    if isinstance(choices, list):
        for choice in cast("list[Any]", choices):
            if isinstance(choice, dict) and isinstance(reason := cast("Any", choice).get("finish_reason"), str):
                yield reason
        return
    for field in ("stop_reason", "status"):
        if isinstance(reason := body.get(field), str):
            yield reason
            return
