"""The inputs of an embedding in parts that a provider takes in one call each, and what became of each part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

import msgspec

from actors.errors.families import CallFailed, Charged
from actors.money import ZERO, Micros
from actors.supervisor.messages import SmartResult  # noqa: TC001 - msgspec resolves the annotations below.

if TYPE_CHECKING:
    from collections.abc import Sequence

EmbedInput: TypeAlias = str | list[int]
"""A text, or its tokens."""
MAX_INPUTS = 2_048
"""The most inputs of one call, if no provider states fewer (OpenAI's API reference, "Create embeddings")."""
MAX_TOKENS = 300_000
"""The most tokens of all inputs of one call, if no provider states fewer (as above)."""
SHOWN_PARTS = 5


class EmbedPart(msgspec.Struct, frozen=True, kw_only=True):
    """The inputs from number `start` up to, but without, `stop`, which are asked for in one request under `key`.

    It has either the `result` of that request, or the `error` in which it ended; neither before it was made. `cost` is
    what it is known to have cost, in micro-units.
    """

    key: str
    start: int
    stop: int
    result: SmartResult | None = None
    error: CallFailed | None = None
    cost: Micros = ZERO

    @property
    def charged(self) -> Charged:
        """Whether it was paid, which may not be known ("held")."""
        if self.result is not None:
            return "yes"
        return "no" if self.error is None else self.error.charged

    def __str__(self) -> str:
        return f"{self.key} (inputs {self.start} to {self.stop - 1})"


class EmbedFailed(CallFailed):
    """Some parts of an embedding failed; `parts` are all, the paid ones with their results.

    Give it to `embed` as `resume`, with the same inputs: only the parts that failed are asked for again, under their
    keys. `charged` is "held" if a part may have been paid whose answer is not known.
    """

    def __init__(self, model: str, parts: Sequence[EmbedPart], *, dimensions: int | None) -> None:
        failed = [part for part in parts if part.error is not None]
        paid = [part for part in parts if part.charged == "yes"]
        held = [part for part in parts if part.charged == "held"]
        told = "".join(f"\n  {part}: {part.error}" for part in failed[:SHOWN_PARTS])
        told += f"\n  and {len(failed) - SHOWN_PARTS} more" if len(failed) > SHOWN_PARTS else ""
        told += f"\n  paid, {sum((part.cost for part in paid), ZERO)}: {_names(paid)}"
        told += f"\n  perhaps paid: {_names(held)}" if held else ""
        super().__init__(
            f"{len(failed)} of {len(parts)} parts of the inputs for {model!r} failed; give this error to embed() as "
            f"resume=, and only these are asked for again:{told}",
            outcome="unknown" if held else "done",
            charged="held" if held else "yes" if paid else "no",
            said=next((part.error.said for part in failed if part.error is not None and part.error.said), ""),
        )
        self.model = model
        self.dimensions = dimensions
        self.parts = tuple(parts)
        self.held = tuple(one for part in failed if part.error is not None for one in part.error.held)

    @property
    def failed(self) -> tuple[EmbedPart, ...]:
        """The parts without an answer."""
        return tuple(part for part in self.parts if part.result is None)


def _names(parts: Sequence[EmbedPart]) -> str:
    return ", ".join(map(str, parts)) or "none"


def checked_inputs(inputs: object) -> list[EmbedInput]:
    """Return the inputs as a list. Raises TypeError or ValueError for what no provider takes, with its number.

    >>> checked_inputs("Hello"), checked_inputs(["a", [1, 2]]), checked_inputs([1, 2])
    (['Hello'], ['a', [1, 2]], [[1, 2]])
    """
    if isinstance(inputs, str):
        inputs = [inputs]
    if not isinstance(inputs, list | tuple):
        raise TypeError(f"inputs must be a list of texts, or of lists of tokens, got {inputs!r:.100}")
    given = list(cast("Sequence[Any]", inputs))
    if not given:
        raise ValueError("inputs must hold at least one text")
    if all(type(one) is int for one in given):
        given = cast("list[Any]", [given])
    for number, one in enumerate(given):
        is_tokens = isinstance(one, list) and all(type(token) is int for token in cast("list[object]", one))
        if not (isinstance(one, str) or is_tokens):
            raise TypeError(f"input {number} must be a text, or a list of tokens, got {one!r:.100}")
        if not one:
            raise ValueError(f"input {number} is empty, which providers refuse; leave it out")
    return given


def split(inputs: Sequence[EmbedInput], *, max_inputs: int, max_tokens: int) -> list[tuple[int, int]]:
    """Return where the parts begin and end that hold no more inputs and tokens than that.

    A text has no more tokens than bytes. An input that is too long by itself is a part of its own: its provider may
    count it as less.

    >>> split(["aaaa", "bbbb", "cccc", "d"], max_inputs=3, max_tokens=8)
    [(0, 2), (2, 4)]
    """
    parts: list[tuple[int, int]] = []
    start = tokens = 0
    for number, one in enumerate(inputs):
        size = len(one.encode("utf-8", "surrogatepass")) if isinstance(one, str) else len(one)
        if number > start and (number - start == max_inputs or tokens + size > max_tokens):
            parts.append((start, number))
            start, tokens = number, 0
        tokens += size
    return [*parts, (start, len(inputs))]


def to_ask_again(part: EmbedPart) -> EmbedPart:
    """Return a part as it is asked for again, unless it has its result.

    A key under which a failure was paid is not paid again; the key of any other part finds its own call, if there is
    one at work.
    """
    if part.error is None:
        return part
    return EmbedPart(key=f"{part.key}'" if part.charged == "yes" else part.key, start=part.start, stop=part.stop)
