"""Whether an item is to blame itself for its failures, since others are answered where it fails. Pure.

The evidence is a product: for each failure of the item, the share of other items that failed lately at the same
provider. That is how likely it is that so many calls fail by chance. Two providers at which one item in a hundred fails
are enough: 1 in 10,000. At providers with shares of 30, 10 and 1 % it takes a fourth failure.

A call that was never begun, by a provider that is overloaded or out of reach, or for want of money or permits, says
nothing of the item.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from actors.errors.families import CallFailed, NotAdmitted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEAD_BELOW = 1 / 5_000
"""How likely it is at most that a dead letter failed by chance."""
AGAIN_AT_ONCE = 0.5
"""How likely a failure is to be repeated by a provider that has answered nothing else in between."""
HANGS_IN_COMPANY = 0.1
"""How likely an item is to hang while nothing shows that others do not: all providers may have become slow at once."""
HANG_FACTOR = 3.0
"""How many times the usual latency an item gets that has hung once."""
MAX_SHORT_TRIES = 3
"""The times that an item has hung after which it gets its whole time again, unless others were answered meanwhile."""
MAX_SHARE_OF_HEALTHY = 0.2
"""The share of other items up to which a provider counts as healthy, so that an item that hangs there is to blame."""


class ItemFailure(NamedTuple):
    """One failure of an item: where, of which kind, and how many calls its provider had answered by then."""

    provider: str
    kind: str
    answered: int
    has_hung: bool = False
    was_overtaken: bool = False
    """Whether a call that had begun later was answered before it failed."""


def is_evidence(error: CallFailed) -> bool:
    """Tell whether a failure may be due to the item; not if its provider is not blamed, or did not begin to work on it.

    >>> from actors.errors.families import ConnectionFailed, Throttled, Transient
    >>> is_evidence(Transient("500")), is_evidence(Throttled("429")), is_evidence(ConnectionFailed("a", "refused"))
    (True, False, False)
    >>> is_evidence(Transient("overloaded", outcome="not_started"))
    False
    """
    return error.blames_provider and not isinstance(error, NotAdmitted) and error.outcome != "not_started"


def chance_of(failures: Sequence[ItemFailure], shares: Mapping[str, float]) -> float:
    """Return how likely all failures of an item are by chance, by the `shares` of others that failed.

    >>> a, b, c = (ItemFailure(name, "Transient", answered=number) for number, name in enumerate("abc"))
    >>> round(chance_of([a, b, c], {"a": 0.3, "b": 0.1, "c": 0.01}), 6)
    0.0003
    """
    chance, answered = 1.0, dict[str, int]()
    hangs_alone = any(failure.was_overtaken for failure in failures)
    for failure in failures:
        share = shares[failure.provider]
        if failure.has_hung and not hangs_alone:
            share = max(share, HANGS_IN_COMPANY)
        elif answered.get(failure.provider) == failure.answered:
            share = max(share, AGAIN_AT_ONCE)
        answered[failure.provider] = failure.answered
        chance *= share
    return chance


def is_dead(chance: float) -> bool:
    """Tell whether an item is not to be tried again."""
    return chance < DEAD_BELOW


def is_suspect(failures: Sequence[ItemFailure]) -> bool:
    """Tell whether the item seems to be to blame: it failed alike elsewhere, or again while others were answered."""
    answered: dict[str, int] = {}
    fails_again = any(answered.setdefault(one.provider, one.answered) < one.answered for one in failures)
    return fails_again or fails_alike_elsewhere(failures)


def fails_alike_elsewhere(failures: Sequence[ItemFailure]) -> bool:
    """Tell whether two failures of the same kind stand at different providers: further ones tell nothing of those.

    >>> fails_alike_elsewhere([ItemFailure("a", "Transient", 0), ItemFailure("a", "Transient", 1)])
    False
    """
    first: dict[str, str] = {}
    return any(first.setdefault(failure.kind, failure.provider) != failure.provider for failure in failures)
