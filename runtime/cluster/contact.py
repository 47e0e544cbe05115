"""Whether a node is still part of its cluster, by when it heard that last. Pure.

A node that is cut off cannot know what the others make of it. So it stops what only one may do sooner than another may
begin: `SILENCE` is less than a death takes to be noticed, and who takes over waits for `TAKEOVER`.
"""

from __future__ import annotations

import msgspec

SILENCE = 1.0
"""Seconds after which a node that has not heard from the cluster stops what only one node may do."""
TAKEOVER = 1.5
"""Seconds for which a node that is started, and who adopts a journal, leave time for the owner before."""
ASK_EVERY = 0.25
"""Seconds between two questions to the cluster."""


class Contact(msgspec.Struct, frozen=True):
    """When a node began, and when it last asked a question that the cluster has answered, by its own clock."""

    began: float
    heard: float = float("-inf")
    is_over: bool = False
    """Whether a later life of the node has taken its place."""

    def holds(self, now: float) -> bool:
        """Tell whether the node may do what only one may do.

        >>> Contact(0.0, heard=10.0).holds(10.9), Contact(0.0, heard=10.0).holds(11.0)
        (True, False)
        """
        return not self.is_over and now - self.heard < SILENCE

    def until_takeover(self, now: float) -> float:
        """Return the seconds for which the node has to leave time for a life of it before."""
        return max(0.0, self.began + TAKEOVER - now)

    def after_answer(self, *, asked: float, is_current: bool) -> Contact:
        """Return it after an answer: it counts from when it was asked for, since when the world may have changed."""
        return Contact(self.began, max(self.heard, asked), self.is_over or not is_current)
