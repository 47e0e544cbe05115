"""The prompt cache of a fake server: which beginning of a request it knows, and for how long. `now` is given.

OpenAI caches prompts of 1,024 tokens or more unasked, in steps of 128, for 5 to 10 minutes of disuse (OpenAI's guide to
prompt caching). Anthropic caches up to the marks of a request, for 5 minutes or an hour (Anthropic's guide).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from actors.fake.prices import FakeUsage

if TYPE_CHECKING:
    from actors.fake.asked import Asked, CacheMark
    from actors.fake.config import FakeModel

LEAST_TOKENS, STEP = 1024, 128
SHORT, LONG = 300.0, 3600.0
MAX_KEPT = 10_000


def input_tokens(asked: Asked, model: FakeModel) -> int:
    """Return the input tokens of a request, cached or not."""
    return max(1, math.ceil(asked.text_bytes / model.bytes_per_token) + asked.extra_tokens)


class PromptCache:
    """The beginnings that are known, each with the time at which it is forgotten."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, str, bytes], float] = {}

    def use(self, asked: Asked, model: FakeModel, *, key: str, now: float) -> FakeUsage:
        """Return how the input of a request counts, and remember its beginnings."""
        total = input_tokens(asked, model)
        if "cache" not in model.abilities:
            return FakeUsage(input=total)
        explicit = asked.form == "messages"
        marks = [
            (mark, tokens)
            for mark in asked.marks
            if (tokens := min(total, math.ceil(mark.size_bytes / model.bytes_per_token))) >= LEAST_TOKENS
        ]
        if not marks:
            return FakeUsage(input=total)
        read = max((tokens for mark, tokens in marks if self._knows(mark, model, key, now)), default=0)
        for mark, _ in marks:
            self._remember((key, model.name, mark.digest), now + (LONG if mark.hour else SHORT))
        if not explicit:
            read = read // STEP * STEP
            return FakeUsage(input=total - read, cache_read=read)
        last, marked = marks[-1]
        written = max(0, marked - read)
        return FakeUsage(
            input=total - read - written,
            cache_read=read,
            cache_write=0 if last.hour else written,
            cache_write_1h=written if last.hour else 0,
        )

    def _knows(self, mark: CacheMark, model: FakeModel, key: str, now: float) -> bool:
        return self._until.get((key, model.name, mark.digest), 0.0) > now

    def _remember(self, name: tuple[str, str, bytes], until: float) -> None:
        self._until[name] = max(until, self._until.pop(name, 0.0))
        if len(self._until) > MAX_KEPT:
            del self._until[next(iter(self._until))]
