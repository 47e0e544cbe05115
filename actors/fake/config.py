"""What a fake server offers: models with prices, speeds, windows and limits, and how it treats its callers."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from actors.fake.draws import Spread  # noqa: TC001 - msgspec reads annotations.
from actors.fake.faults import FaultPlan
from actors.fake.prices import FakePrice

DialectName: TypeAlias = Literal[
    "openai", "azure", "groq", "mistral", "together", "openrouter", "deepseek", "xai", "gemini", "anthropic"
]
Ability: TypeAlias = Literal["streaming", "tools", "schemas", "reasoning", "cache", "images"]
AnswerKind: TypeAlias = Literal["text", "echo", "tool", "refusal", "content_filter", "empty", "not_json"]
EVERYTHING: tuple[Ability, ...] = ("streaming", "tools", "schemas", "reasoning", "cache", "images")


class FakeLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one model for each key, as token buckets that refill evenly; None is no limit."""

    requests: int | None = None
    """Per minute."""
    requests_per_day: int | None = None
    tokens: int | None = None
    """Input and output together, per minute."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    concurrent: int | None = None
    """Calls under way at the same time."""

    def __post_init__(self) -> None:
        """Refuse limits below 1."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"limit {name}: expected a number from 1 up, got {value}")


class ScriptedAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to answer if the last message contains a text; the first that matches counts, and "" always matches."""

    contains: str = ""
    kind: AnswerKind = "text"
    text: str = ""
    """The answer; for a refusal its words; for a tool its arguments as JSON, or empty to make them from the schema."""
    tool: str = ""
    """The tool that is called; empty for the first."""


class FakeModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model: `price` in dollars per million tokens, `latency` in seconds, `token_speed` in tokens a second."""

    name: str
    kind: Literal["chat", "embedding"] = "chat"
    dialect: DialectName | None = None
    """None is that of the server."""
    price: FakePrice = FakePrice()
    latency: Spread = 0.0
    """Seconds until the first token."""
    token_speed: Spread = 0.0
    """Tokens a second after the first; 0 sends all at once."""
    chunk_tokens: int = 1
    """Tokens in one event of a stream."""
    output_tokens: Spread = 32.0
    """The length of an answer that nothing else decides."""
    reasoning_tokens: Spread = 64.0
    """What is reasoned if a request asks for it."""
    bytes_per_token: float = 4.0
    context_window: int = 128_000
    max_output: int = 16_384
    dimensions: int = 256
    """Of an embedding, unless the request says."""
    limits: FakeLimits = FakeLimits()
    abilities: tuple[Ability, ...] = EVERYTHING
    answers: tuple[ScriptedAnswer, ...] = ()
    tool_share: float = 1.0
    """Of the requests that leave it to the model, the share that calls a tool before it answers."""
    parallel_tools: int = 1
    """How many tools are called at once, if the request allows it."""
    on_cut: Literal["stops", "runs_on"] = "stops"
    """What happens, and is charged, if the client leaves: what came until then, or all."""

    def __post_init__(self) -> None:
        """Refuse what makes no model."""
        if not self.name:
            raise ValueError("a model needs a name")
        for name in ("chunk_tokens", "context_window", "max_output", "dimensions", "bytes_per_token"):
            if getattr(self, name) <= 0:
                raise ValueError(f"model {self.name!r}: {name} must be > 0, got {getattr(self, name)}")
        if not 0.0 <= self.tool_share <= 1.0:
            raise ValueError(f"model {self.name!r}: tool_share must be from 0 to 1, got {self.tool_share}")


class FakeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fake server: its models, its dialect, the seed that decides answers and faults, and the faults themselves."""

    models: tuple[FakeModel, ...] = (FakeModel(name="fake-model"),)
    dialect: DialectName = "openai"
    seed: int = 0
    plan: FaultPlan = FaultPlan()
    keys: dict[str, str] = {}
    """The accepted API keys by a name that the books show; empty accepts every key, and none."""
    idempotency: bool = False
    """Whether an `Idempotency-Key` gets its first answer again, at no charge. No model provider is known to do so."""
    cost_delay: float = 0.0
    """Seconds after which the cost of a generation is told; until then it is 404."""
    books_limit: int = 100_000
    """The calls whose lines the books keep; totals count all."""

    def __post_init__(self) -> None:
        """Refuse models of the same name."""
        names = [model.name for model in self.models]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"list each model once; {', '.join(twice)} occurs again")
