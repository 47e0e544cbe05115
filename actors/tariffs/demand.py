"""What a call to a model will need, as far as its request tells: a bound that it cannot pass, and an estimate."""

from __future__ import annotations

import msgspec

from actors.validation import MAX_COUNT, check_count

ONLY_INT = {int}


class Demand(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The tokens of one call beforehand.

    `input_bound` is what its input cannot pass, `input_estimate` what it presumably has, and `input_least` what it has
    for certain, by which it may be too long for a window. `output_bound` is what its
    whole output cannot pass, over all `answers` that it asks for; None if the request does not say, so that a bound is
    chosen for it, and sent. `output_estimate` is what it presumably has; 0 for what others like it had. Calls of one
    `kind` are alike: what the calls before were found to use corrects the estimate of the next of their kind.
    """

    input_bound: int
    input_estimate: int
    output_bound: int | None = None
    output_estimate: int = 0
    answers: int = 1
    input_least: int = 0
    kind: str = ""

    def __post_init__(self) -> None:
        bound = 0 if self.output_bound is None else self.output_bound
        counts = (self.input_bound, self.input_estimate, self.input_least, self.output_estimate, bound, self.answers)
        if set(map(type, counts)) == ONLY_INT and min(counts) >= 0 and self.answers > 0 and max(counts) <= MAX_COUNT:
            return  # One is made several times for each call.
        check_count("input_bound", self.input_bound, least=0, unit="token")
        check_count("input_estimate", self.input_estimate, least=0, unit="token")
        check_count("input_least", self.input_least, least=0, unit="token")
        check_count("output_estimate", self.output_estimate, least=0, unit="token")
        check_count("answers", self.answers, unit="answer")
        if self.output_bound is not None:
            check_count("output_bound", self.output_bound, least=0, unit="token")
