"""Responses that a fake server keeps: those of the background go on after their request, and can be cancelled."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import msgspec

from actors.fake.response_answers import response_at, response_id

if TYPE_CHECKING:
    from actors.fake.made import Made
    from actors.fake.wire import FakeReply

MAX_STORED = 10_000


class StoredResponse(msgspec.Struct, kw_only=True):
    """One response; `reply` says when its tokens come, and is None once it has been settled."""

    made: Made
    began: float = 0.0
    reply: FakeReply | None = None
    cancelled: bool = False

    def told(self, now: float) -> dict[str, Any]:
        """Return the response as it is now."""
        if self.cancelled:
            return response_at(self.made, "cancelled")
        if self.reply is None:
            return response_at(self.made, "ended")
        return response_at(self.made, "queued" if now < self.began + self.reply.latency else "in_progress")


class StoredResponses:
    """The responses by their ids."""

    def __init__(self) -> None:
        self._by_id: OrderedDict[str, StoredResponse] = OrderedDict()

    def add(self, stored: StoredResponse) -> None:
        """Keep a response, and forget the oldest of too many."""
        self._by_id[response_id(stored.made)] = stored
        if len(self._by_id) > MAX_STORED:
            self._by_id.popitem(last=False)

    def get(self, identity: str) -> StoredResponse | None:
        """Return a response."""
        return self._by_id.get(identity)
