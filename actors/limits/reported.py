"""What a provider reported of its limits, and of what a call used of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, TypeAlias, cast

import msgspec

from actors.limits.quota import REQUESTS
from actors.validation import check_count, check_text

Field: TypeAlias = Literal["limit", "remaining", "reset", "window"]


class HeardLimit(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider said of one dimension; None is what it did not say.

    `remaining` may be used in the next `reset` seconds, `limit` in every `window` seconds.
    """

    dimension: str = REQUESTS
    limit: float | None = None
    remaining: float | None = None
    reset: float | None = None
    window: float | None = None

    def __post_init__(self) -> None:
        for name in ("limit", "remaining", "reset", "window"):
            told: object = getattr(self, name)
            if told is not None and not (isinstance(told, float | int) and 0 <= told < math.inf):
                raise ValueError(f"{name} must be a number >= 0 and finite, or None, got {told!r:.100}")


def check_told(weights: object, limits: object) -> None:
    """Raise for what cannot be what a call has used of limits, or was told of them."""
    if not isinstance(weights, Mapping):
        raise TypeError(f'weights must be like {{"tokens": 870}}, got {weights!r:.100}')
    for dimension, weight in cast("Mapping[object, object]", weights).items():
        check_text("a dimension of weights", dimension)
        check_count(f"the weight in {dimension}", weight, least=0)
    if not isinstance(limits, tuple) or not all(isinstance(one, HeardLimit) for one in cast("tuple[object]", limits)):
        raise TypeError(f"limits must be a tuple of HeardLimit, got {limits!r:.100}")
