"""What a call has used, in one form for all providers: how many tokens of each kind, none of them counted twice.

Providers tell it in many forms. Some count cached tokens as part of the input, others beside it; so it is with the
tokens of the reasoning and the output. The forms are data: `DIALECTS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import msgspec

from actors.money import OptionalAmountField, amount_default, cost_of, take_amount

if TYPE_CHECKING:
    from actors.money import Micros

MAX_TOKENS = 2**40
"""No call uses so many tokens: what says more is no count."""

Path: TypeAlias = tuple[str, ...]

COUNTS = ("input", "cache_read", "cache_write", "cache_write_1h", "output", "reasoning")


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """How many tokens a call used. Each token counts once: the sum is all that were read and written.

    `input` is what was neither read from a cache (`cache_read`) nor written to one (`cache_write`, for 5 minutes or as
    long as the provider keeps it by default; `cache_write_1h`, for an hour). `output` is without `reasoning`. `cost` is
    what the provider itself said that the call cost, if it did. It `is_counted` if the provider did not tell it, and it
    was counted by what came of the answer: then what is settled by it is estimated. Raises TypeError or ValueError for
    counts that cannot be.
    """

    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    cost: OptionalAmountField = amount_default(None)
    is_counted: bool = False

    def __post_init__(self) -> None:
        counts = (self.input, self.cache_read, self.cache_write, self.cache_write_1h, self.output, self.reasoning)
        for name, count in zip(COUNTS, counts, strict=True):
            if type(count) is not int or not 0 <= count < MAX_TOKENS:
                raise ValueError(f"{name} must be a whole number of tokens >= 0, got {count!r:.100}")
        if self.cost is not None:
            take_amount(self, "cost")

    @property
    def all_input(self) -> int:
        """Every token that was read, from a cache or not."""
        return self.input + self.cache_read + self.cache_write + self.cache_write_1h

    @property
    def all_output(self) -> int:
        """Every token that was written, reasoning included."""
        return self.output + self.reasoning

    @property
    def is_empty(self) -> bool:
        """Whether no token was used, as far as it says. No call to a model uses none: that means, it is not known."""
        return not (self.all_input or self.all_output)

    def weights(self) -> dict[str, int]:
        """Return what it used of limits: "input_tokens" leaves out what was read from a cache, as limits mostly do."""
        return {
            "tokens": self.all_input + self.all_output,
            "input_tokens": self.all_input - self.cache_read,
            "output_tokens": self.all_output,
        }


class UsageForm(msgspec.Struct, frozen=True, kw_only=True):
    """How one dialect tells usage: each field is where a count stands, and of several places the first that has one.

    Cached tokens stand `cached_inside` the input, or beside it; and reasoning `reasoning_inside` the output, unless the
    sum of all shows that it is otherwise.
    `cache_write` may be a total, of which `cache_write_1h` is a part.
    """

    input: tuple[Path, ...]
    output: tuple[Path, ...]
    cache_read: tuple[Path, ...] = ()
    cache_write: tuple[Path, ...] = ()
    cache_write_1h: tuple[Path, ...] = ()
    reasoning: tuple[Path, ...] = ()
    cost: tuple[Path, ...] = ()
    cost_per: int = 1
    """The stated cost is in such parts of a dollar."""
    cached_inside: bool = True
    reasoning_inside: bool = True
    rest_is_reasoning: bool = False
    """What the sum of all has beyond input and output is reasoning that is told nowhere else."""


_DETAILS = "prompt_tokens_details"
_CHAT = UsageForm(
    input=(("prompt_tokens",),),
    output=(("completion_tokens",),),
    # DeepSeek and Moonshot tell hits beside the details, and older Mistral in a field of its own; all are inside.
    cache_read=((_DETAILS, "cached_tokens"), ("prompt_cache_hit_tokens",), ("cached_tokens",)),
    cache_write=((_DETAILS, "cache_write_tokens"), (_DETAILS, "cache_creation_tokens")),
    reasoning=(("completion_tokens_details", "reasoning_tokens"),),
)

DIALECTS: dict[str, UsageForm] = {
    # platform.openai.com/docs/api-reference/chat/object: cached and reasoning tokens are parts of the two sums.
    "chat": _CHAT,
    "openai": _CHAT,
    "azure": _CHAT,
    "mistral": _CHAT,
    "groq": _CHAT,
    "together": _CHAT,
    "cerebras": _CHAT,
    "fireworks": _CHAT,
    # api-docs.deepseek.com/api/create-chat-completion: prompt_tokens = hit + miss.
    "deepseek": _CHAT,
    # docs.x.ai: prompt tokens include cached ones; completion tokens do not include those of reasoning.
    "xai": msgspec.structs.replace(
        _CHAT, reasoning_inside=False, cost=(("cost_in_usd_ticks",),), cost_per=10_000_000_000
    ),
    # ai.google.dev/gemini-api/docs/openai: its thoughts are in total_tokens alone.
    "gemini": msgspec.structs.replace(_CHAT, rest_is_reasoning=True),
    # openrouter.ai/docs/use-cases/usage-accounting: `cost` is what was charged, in credits of a dollar.
    "openrouter": msgspec.structs.replace(_CHAT, cost=(("cost",),)),
    # platform.openai.com/docs/api-reference/responses/object
    "responses": UsageForm(
        input=(("input_tokens",),),
        output=(("output_tokens",),),
        cache_read=(("input_tokens_details", "cached_tokens"),),
        cache_write=(("input_tokens_details", "cache_write_tokens"),),
        reasoning=(("output_tokens_details", "reasoning_tokens"),),
    ),
    # docs.claude.com/en/docs/build-with-claude/prompt-caching: input_tokens are those after the last cache mark.
    "anthropic": UsageForm(
        input=(("input_tokens",),),
        output=(("output_tokens",),),
        cache_read=(("cache_read_input_tokens",),),
        cache_write=(("cache_creation_input_tokens",),),
        cache_write_1h=(("cache_creation", "ephemeral_1h_input_tokens"),),
        reasoning=(("output_tokens_details", "thinking_tokens"),),
        cached_inside=False,
    ),
    # platform.openai.com/docs/api-reference/embeddings/create: nothing is written.
    "embeddings": UsageForm(input=(("prompt_tokens",), ("total_tokens",)), output=()),
}
"""The forms of usage by the names of dialects; any other name is read as `chat`."""


def read_usage(told: object, dialect: str = "chat") -> Usage | None:
    """Return what a provider told of a call's usage; None if it told none, or what cannot be.

    `told` is the object `usage` of an answer, as it was decoded. A count that is negative, no whole number, or larger
    than what it is a part of, makes all of it unknown: to guess would charge the wrong sum as if it were exact. Usage
    without any token is unknown too, if no cost is told besides.

    >>> told = {"prompt_tokens": 2_006, "completion_tokens": 300, "prompt_tokens_details": {"cached_tokens": 1_920}}
    >>> read_usage(told)
    Usage(input=86, cache_read=1920, cache_write=0, cache_write_1h=0, output=300, reasoning=0, cost=None, \
is_counted=False)
    >>> read_usage({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 99}, "completion_tokens": 1})
    """
    if not isinstance(told, Mapping):
        return None
    form, usage = DIALECTS.get(dialect, _CHAT), cast("Mapping[str, object]", told)
    try:
        return _read(usage, form)
    except _NotTold:
        return None


class _NotTold(Exception):
    """A count is missing, or is none."""


def _read(usage: Mapping[str, object], form: UsageForm) -> Usage | None:
    cache_read, cache_write = _count(usage, form.cache_read), _count(usage, form.cache_write)
    one_hour, reasoning = _count(usage, form.cache_write_1h), _count(usage, form.reasoning)
    cost = _cost(usage, form)
    read = _count(usage, form.input, is_required=True)
    written = _count(usage, form.output, is_required=bool(form.output))
    if one_hour > cache_write:
        raise _NotTold
    if reasoning and _reasoning_inside(usage, form, read=read, written=written, reasoning=reasoning):
        written -= reasoning
    elif form.rest_is_reasoning and not reasoning:
        reasoning = max(0, _count(usage, (("total_tokens",),)) - read - written)
    if form.cached_inside:
        read -= cache_read + cache_write
    if read < 0 or written < 0:
        raise _NotTold
    found = Usage(
        input=read,
        cache_read=cache_read,
        cache_write=cache_write - one_hour,
        cache_write_1h=one_hour,
        output=written,
        reasoning=reasoning,
        cost=cost,
    )
    return None if found.is_empty and not cost else found


def _reasoning_inside(usage: Mapping[str, object], form: UsageForm, *, read: int, written: int, reasoning: int) -> bool:
    """Tell whether the tokens of the reasoning are a part of the output: by the sum, if that tells it."""
    total = _at(usage, ("total_tokens",))
    if total == read + written + reasoning:
        return False
    return form.reasoning_inside or total == read + written


def _count(usage: Mapping[str, object], places: tuple[Path, ...], *, is_required: bool = False) -> int:
    """Return the first count that is told; 0 if none is, unless it is required."""
    for path in places:
        told = usage.get(path[0]) if len(path) == 1 else _at(usage, path)
        if told is None:
            continue
        if type(told) is not int or not 0 <= told < MAX_TOKENS:
            raise _NotTold
        return told
    if is_required:
        raise _NotTold
    return 0


def _at(usage: Mapping[str, object], path: Path) -> object:
    """Return what stands at a path, or None; what is no object on the way has nothing in it."""
    found: Any = usage
    for name in path:
        if found is None:
            return None
        if not isinstance(found, (dict, Mapping)):
            raise _NotTold
        found = found.get(name)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return found  # pyright: ignore[reportUnknownVariableType]


def _cost(usage: Mapping[str, object], form: UsageForm) -> Micros | None:
    """Return the cost that is told, rounded up; None if none is, or if it is no amount."""
    for path in form.cost:
        told: Any = _at(usage, path)
        if told is None or type(told) is bool:
            continue
        try:
            # JSON has floats, and repr() gives back the digits that were told.
            return _scaled_cost(told, form.cost_per)
        except (TypeError, ValueError, ArithmeticError):
            return None
    return None


def _scaled_cost(told: Any, per: int) -> Micros:
    if per == 1:
        return cost_of(repr(told) if isinstance(told, float) else str(told))
    if type(told) is not int:
        raise TypeError(f"a cost in parts of a dollar must be a whole number, got {told!r:.100}")
    micros = -(-told * 1_000_000 // per)
    return cost_of(f"{micros}e-6")
