"""The outcome of one item among many: it is done, it failed, or it was interrupted; for requests, also unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import msgspec

from actors.errors.families import CallFailed  # noqa: TC001 - msgspec resolves the annotations below.
from actors.supervisor.messages import SmartResult  # noqa: TC001

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


class Done(msgspec.Struct, frozen=True):
    """An item that was answered."""

    index: int
    item: Any
    result: SmartResult


class Failed(msgspec.Struct, frozen=True):
    """An item that was not answered, and cost nothing beyond the attempts in `error`."""

    index: int
    item: Any
    error: Exception


class Unknown(msgspec.Struct, frozen=True):
    """An item whose call may have been made and paid, although no answer came. Look it up before you ask again.

    `error` is an `OutcomeUnknown`, or another error whose `charged` is "held".
    """

    index: int
    item: Any
    error: CallFailed


RequestOutcome: TypeAlias = Done | Failed | Unknown
