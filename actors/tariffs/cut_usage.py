"""What a call has used that was cut off, as far as can be told by what came of its answer. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from actors.tariffs.estimate import BYTES_PER_TOKEN
from actors.tariffs.usage import Usage

if TYPE_CHECKING:
    from actors.tariffs.demand import Demand

UNSEEN_SECONDS = 2.0
"""A provider that stops goes on writing for so long after its stream was cut off, at most."""
TYPICAL_SPEED = 120.0
"""Tokens a second, for a model of which nothing is known: OpenAI's models wrote 121 on average (benchlm.ai/llm-speed,
by figures of Artificial Analysis of April 2026)."""
WEIGHT = 1.0
"""What is known of a model beforehand counts as much as one second of a stream of its own."""
FADING = 0.9
"""What a stream has shown counts so much less with each one after it."""
ENOUGH_BYTES = 200
"""Of shorter answers, the tokens of a byte say little."""


class PartialAnswer(msgspec.Struct, frozen=True):
    """How much of an answer has come: its bytes, in so many `seconds` of reading since its first piece.

    For `behind` seconds more nothing was read, because the consumer was slow.
    """

    size_bytes: int = 0
    seconds: float = 0.0
    behind: float = 0.0


class TokenSpeed(msgspec.Struct, frozen=True):
    """How fast a model writes: what is assumed `at_first`, in tokens a second, and what its streams have shown since.

    >>> fast = TokenSpeed().after(PartialAnswer(4_000, 2.0), tokens=1_000)
    >>> round(TokenSpeed().usual), round(fast.usual)
    (120, 373)
    """

    at_first: float = TYPICAL_SPEED
    tokens: float = 0.0
    seconds: float = 0.0
    per_byte: float = 1 / BYTES_PER_TOKEN

    @property
    def usual(self) -> float:
        """The tokens that it writes in a second, as far as is known."""
        return (self.tokens + WEIGHT * self.at_first) / (self.seconds + WEIGHT)

    def tokens_in(self, size_bytes: int) -> int:
        """Return the tokens of so many bytes of an answer: no fewer than of English text."""
        return math.ceil(size_bytes * max(self.per_byte, 1 / BYTES_PER_TOKEN))

    def of_stream(self, output: int, seconds: float) -> float:
        """Return the tokens a second of a stream that has brought `output` tokens in `seconds`.

        A stream that has just begun tells little of itself: one token in a millisecond makes no thousand in a second.
        """
        return (output + WEIGHT * self.usual) / (max(seconds, 0.0) + WEIGHT)

    def after(self, answer: PartialAnswer, *, tokens: int) -> TokenSpeed:
        """Return what is known after a stream that came whole; `tokens` is what its provider told, 0 if nothing."""
        told, per_byte = tokens or self.tokens_in(answer.size_bytes), self.per_byte
        if tokens and answer.size_bytes >= ENOUGH_BYTES:
            per_byte += (tokens / answer.size_bytes - per_byte) / 2
        return TokenSpeed(
            at_first=self.at_first,
            tokens=FADING * self.tokens + told,
            seconds=FADING * self.seconds + answer.seconds,
            per_byte=per_byte,
        )


def usage_when_cut(told: Usage | None, demand: Demand, answer: PartialAnswer, speed: TokenSpeed) -> Usage:
    """Return the usage of a call whose provider stops when it is cut off.

    To what came of the `answer` comes what the provider wrote meanwhile, 2 seconds at the speed of this stream, up to
    the bound of the output; and what it wrote while its consumer was slow. The input is what the provider `told`, or
    else the estimate. Nothing of it is exact.

    >>> from actors.tariffs.demand import Demand
    >>> demand = Demand(input_bound=100, input_estimate=30, output_bound=500)
    >>> usage = usage_when_cut(None, demand, PartialAnswer(400, seconds=1.0), TokenSpeed(at_first=100.0))
    >>> usage.input, usage.output
    (30, 300)
    >>> usage_when_cut(None, demand, PartialAnswer(4, seconds=0.001), TokenSpeed(at_first=100.0)).output
    203
    """
    output = speed.tokens_in(answer.size_bytes)
    if output:
        pace = speed.of_stream(output, answer.seconds)
        if answer.behind > 0:
            # Neither more than the provider wrote since the first piece, nor more than while nothing was read.
            output = max(output, round(min(pace * (answer.seconds + answer.behind), output + pace * answer.behind)))
        output += math.ceil(UNSEEN_SECONDS * pace)
    output = max(output, 0 if told is None else told.all_output)
    if demand.output_bound is not None:
        output = min(output, demand.output_bound)
    if told is None:
        return Usage(input=demand.input_estimate, output=output, is_counted=True)
    return msgspec.structs.replace(told, output=output, reasoning=0, cost=None, is_counted=True)


def usage_at_most(demand: Demand, *, max_output: int | None) -> Usage | None:
    """Return the usage of a call that is charged whole, whatever came of it; None if its output has no bound."""
    output = demand.output_bound
    if output is None:
        if max_output is None:
            return None
        output = max_output * demand.answers
    return Usage(input=demand.input_bound, output=output, is_counted=True)
