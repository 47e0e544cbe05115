"""The outcome of one item among many: it is done, it failed, or it was interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")
R = TypeVar("R")


class ItemDone(msgspec.Struct, Generic[T, R], frozen=True):
    """An item whose work returned `result`; `index` counts the items of the source from 0."""

    index: int
    item: T
    result: R


class ItemFailed(msgspec.Struct, Generic[T], frozen=True):
    """An item whose work raised `error`, or did not begin because the limiter refused it."""

    index: int
    item: T
    error: Exception


class ItemInterrupted(msgspec.Struct, Generic[T], frozen=True):
    """An item without an outcome, because the consumer left; if its work had `begun`, it may have taken effect."""

    index: int
    item: T
    begun: bool


ItemOutcome: TypeAlias = ItemDone[T, R] | ItemFailed[T]


class WrongResultCount(ValueError):
    """`process_batch` did not return one result for each item; `results` is what it returned, which may be paid for."""

    def __init__(self, results: object, *, expected: int) -> None:
        super().__init__(f"process_batch must return {expected} results, one for each item, got {results!r:.100}")
        self.results = results


class SourceFailed(Exception):
    """The source raised an error, which is the cause. `outcomes` has those of all items before it, in their order."""

    def __init__(self, error: Exception, outcomes: Sequence[ItemOutcome[Any, Any]]) -> None:
        super().__init__(f"the source raised {type(error).__name__} after {len(outcomes)} items: {error}")
        self.outcomes = outcomes
