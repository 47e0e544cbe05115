"""How many of the items that one provider tried lately have failed at it, with any one item left out.

That share tells a bad item from a bad provider: an item that fails where all others are answered is to blame itself.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

MAX_CALLS = 200
"""The calls that are remembered."""
LATELY = 600.0
"""Seconds for which they count."""
LEAST_SHARE = 0.01
"""The share of items that fails at any provider, however well it is: answers alone never show that it is 0."""
ENOUGH_CALLS = 20
"""The calls from which on the share is that of the provider itself; with fewer, some of it is presumed."""
UNKNOWN_SHARE = 0.5
"""The share while nothing is known of any provider that an item was tried at."""
EXPLORED = 10
"""One call in so many has its whole configured time while items hang, so that answers are seen that take long."""
ROW = 2
"""Failures of different items in a row, from which on the provider itself may have begun to fail."""


class ItemHistory:
    """The ends of the latest calls at one provider: answers, and failures with the id of their request."""

    __slots__ = ("_ends", "_excused", "_explored", "_explores_until", "_unconfirmed", "answered")

    def __init__(self) -> None:
        self._ends: deque[tuple[float, str | None]] = deque(maxlen=MAX_CALLS)
        self._excused: set[str] = set()
        """Items at work that seem to be bad, and whose failures do not count for the time being."""
        self._unconfirmed: dict[str, tuple[ItemHistory, ...]] = {}
        """The items found bad since the last answer, and all the histories that they are in."""
        self._explored = self._explores_until = 0
        self.answered = 0
        """How many calls were answered so far."""

    def add_answer(self, now: float) -> None:
        """Note an answer at `now`; it shows too that the items found bad since the last one were bad indeed."""
        self.answered += 1
        self._ends.append((now, None))
        if self._unconfirmed:
            for item, histories in tuple(self._unconfirmed.items()):
                for history in histories:
                    history.forget(item)

    def add_failure(self, item: str, now: float) -> None:
        """Note a failure of an item that the provider is to blame for, as far as is known."""
        self._ends.append((now, item))

    def excuse(self, item: str) -> None:
        """Leave the failures of an item out until `accuse` or `forget`: it seems to be bad, and is still at work."""
        self._excused.add(item)

    def accuse(self, item: str) -> None:
        """Count the failures of an item that was answered after all."""
        self._excused.discard(item)

    def forget(self, item: str) -> None:
        """Forget the failures of an item that is to blame itself."""
        self._excused.discard(item)
        self._unconfirmed.pop(item, None)
        self._ends = deque((end for end in self._ends if end[1] != item), maxlen=MAX_CALLS)

    def explore(self) -> None:
        """Let some of the next calls have their whole time: an item that hung alone may just have needed more."""
        self._explores_until = self.answered + MAX_CALLS

    def explores(self) -> bool:
        """Tell whether the next call is one of these; asked once for each call."""
        if self.answered >= self._explores_until:
            return False
        self._explored += 1
        return self._explored % EXPLORED == 0

    @property
    def has_unconfirmed(self) -> bool:
        """Whether an item was found bad here, and nothing has been answered since."""
        return bool(self._unconfirmed)

    def forget_once_answered(self, item: str, histories: tuple[ItemHistory, ...]) -> None:
        """Forget an item in all `histories` with the next answer; until then, all of them may have begun to fail."""
        if len(self._unconfirmed) < MAX_CALLS:
            self._unconfirmed[item] = histories

    def without(self, item: str, *, now: float) -> OtherItems:
        """Return what the other items tell that ended here lately."""
        calls = failures = 0
        row: set[str] = set()
        is_row = True
        for at, failed in reversed(self._ends):
            if at < now - LATELY:
                break
            if failed is not None and (failed == item or failed in self._excused):
                continue
            calls += 1
            failures += failed is not None
            if failed is None:
                is_row = False
            elif is_row:
                row.add(failed)
        return OtherItems(calls, failures, len(row))

    def __repr__(self) -> str:
        failed = sum(item is not None for _, item in self._ends)
        return f"<ItemHistory {failed} of {len(self._ends)} calls failed>"


class OtherItems(NamedTuple):
    """The latest calls of other items at one provider: all, those that failed, and the items that failed in a row."""

    calls: int
    failures: int
    row: int

    def share(self, presumed: float) -> float:
        """Return the share of them that fails, from 0.01 to 1; with fewer than 20 calls, some of it is `presumed`.

        Half a standard deviation is added, as the calls are few. If the latest failed in a row, the provider itself may
        have begun to fail, and the share of that row counts if it is larger.

        >>> OtherItems(100, 25, 0).share(0.0), OtherItems(0, 0, 0).share(0.5), OtherItems(100, 2, 2).share(0.0)
        (0.275, 0.5, 0.5)
        """
        missing = max(0, ENOUGH_CALLS - self.calls)
        share = (self.failures + math.sqrt(self.failures) / 2 + presumed * missing) / (self.calls + missing)
        return max(LEAST_SHARE, min(1.0, share), self.row / (self.row + ROW) if self.row >= ROW else 0.0)


def shares_without(item: str, histories: Mapping[str, ItemHistory], *, now: float) -> dict[str, float]:
    """Return for each provider, by name, the share of other items that failed there lately.

    A provider of which little is known is presumed to be as the others in `histories` are, all together.
    """
    others = {name: history.without(item, now=now) for name, history in histories.items()}
    calls = sum(one.calls for one in others.values())
    missing = max(0, ENOUGH_CALLS - calls)
    failures = sum(one.failures for one in others.values()) + UNKNOWN_SHARE * missing
    return {name: one.share(failures / (calls + missing)) for name, one in others.items()}


def others_were_answered(histories: Collection[ItemHistory], answered: Collection[int]) -> bool:
    """Tell whether any provider has answered more calls than the number that it had `answered` before."""
    return any(history.answered > before for history, before in zip(histories, answered, strict=True))


def acquit(item: str, histories: Collection[ItemHistory], answered: Collection[int]) -> None:
    """Forget the failures of an item that is to blame itself, at once or with the next answer.

    `answered` are how many calls each of these providers had answered when the item failed there first. If none has
    answered another since, they may as well all have begun to fail together.
    """
    if others_were_answered(histories, answered):
        for history in histories:
            history.forget(item)
        return
    for history in histories:
        history.forget_once_answered(item, tuple(histories))
