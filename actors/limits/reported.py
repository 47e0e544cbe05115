"""The rate limits that a provider reported, and how much of them a call used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, TypeAlias, cast

import msgspec

from actors.limits.quota import REQUESTS
from actors.validation import check_count, check_text

Field: TypeAlias = Literal["limit", "remaining", "reset", "window"]


class ReportedLimit(msgspec.Struct, frozen=True, kw_only=True):
    """One limit as the provider reported it; a field is None if the provider did not state it.

    `remaining` may be used in the next `reset` seconds, `limit` in every `window` seconds.
    """

    dimension: str = REQUESTS
    limit: float | None = None
    remaining: float | None = None
    reset: float | None = None
    window: float | None = None

    def __post_init__(self) -> None:
        for name in ("limit", "remaining", "reset", "window"):
            value: object = getattr(self, name)
            if value is not None and not (isinstance(value, float | int) and 0 <= value < math.inf):
                raise ValueError(f"{name} must be a number >= 0 and finite, or None, got {value!r:.100}")


def check_reported(weights: object, limits: object) -> None:
    """Raise TypeError or ValueError unless `weights` is what a call can use, and `limits` are reported limits."""
    if not isinstance(weights, Mapping):
        raise TypeError(f'weights must be like {{"tokens": 870}}, got {weights!r:.100}')
    for dimension, weight in cast("Mapping[object, object]", weights).items():
        check_text("a dimension of weights", dimension)
        check_count(f"the weight in {dimension}", weight, least=0)
    if not isinstance(limits, tuple) or not all(
        isinstance(one, ReportedLimit) for one in cast("tuple[object]", limits)
    ):
        raise TypeError(f"limits must be a tuple of ReportedLimit, got {limits!r:.100}")
