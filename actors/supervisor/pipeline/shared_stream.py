"""The pieces of one answer for all that read it: each is kept once, and each reader takes them at its own pace."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from actors.errors.families import ConsumerLeft, StreamBroken, Transient
from actors.transports.streaming import Restarted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.supervisor.messages import AfterCut
    from actors.transports.streaming import StreamConfig, StreamTerms

MAX_KEPT = 50_000
"""The pieces of one answer that are kept: several times those of the longest answers of models."""
LEAD = 16
"""The pieces that have come and that no reader has taken, at most; then no more are read from the provider."""


class Reader:
    """One reader of a shared stream: its pieces go where `terms` say."""

    def __init__(self, terms: StreamTerms, *, after_cut: AfterCut, position: int) -> None:
        self.terms, self.after_cut = terms, after_cut
        self.position = position
        self.has_begun = False
        self.wants_whole = False
        """Whether it came too late for the first pieces, so that it gets the answer whole at the end."""

    @property
    def takes_void(self) -> bool:
        """Whether what it has may become void."""
        return self.after_cut == "restart" or (self.after_cut == "restart_unseen" and not self.terms.sink.is_committed)


class SharedStream:
    """A `StreamSink` from which several readers are given the same pieces, from the first on.

    It waits for the quickest of its readers, and for none if it has none. Beyond `MAX_KEPT` pieces, the older half is
    dropped: a reader that has not read them has left, and one that comes later gets the answer whole at the end.
    """

    def __init__(self) -> None:
        self._max_kept = MAX_KEPT
        self._kept: list[Any] = []
        self._dropped = 0
        """How many pieces came before those that are kept."""
        self._begin = 0
        """The number of the first piece that is not void."""
        self._readers: list[Reader] = []
        self._came, self._taken = asyncio.Event(), asyncio.Event()
        self._has_ended = self._is_closed = False

    @property
    def _count(self) -> int:
        return self._dropped + len(self._kept)

    @property
    def is_committed(self) -> bool:
        """Whether one of its readers acts on what came."""
        return any(reader.terms.sink.is_committed for reader in self._readers)

    @property
    def pieces(self) -> Sequence[Any]:
        """The pieces that are not void; none if they are too many to be kept."""
        return () if self._begin < self._dropped else self._kept[self._begin - self._dropped :]

    async def put(self, piece: Any, *, patience: float) -> None:
        """Keep a piece for all readers; waits while none of them takes it. Raises `ConsumerLeft` if it is closed."""
        if not self._is_closed:
            self._kept.append(piece)
            if isinstance(piece, Restarted):
                self._begin = self._count
            if len(self._kept) > self._max_kept:
                half = len(self._kept) // 2
                del self._kept[:half]
                self._dropped += half
            self._came.set()
        while not self._is_closed and self._readers and self._lead() >= LEAD:
            self._taken.clear()
            await self._taken.wait()
        if self._is_closed:
            raise ConsumerLeft

    def _lead(self) -> int:
        return self._count - max(reader.position for reader in self._readers)

    def join(self, terms: StreamTerms, *, after_cut: AfterCut) -> Reader:
        """Return a new reader, which gets what came so far first; `give` hands it its pieces, until it leaves."""
        reader = Reader(terms, after_cut=after_cut, position=self._begin)
        reader.wants_whole = self._begin < self._dropped
        self._readers.append(reader)
        self._taken.set()
        return reader

    def leave(self, reader: Reader) -> None:
        """Wait for a reader no more."""
        self._readers.remove(reader)
        self._taken.set()

    async def give(self, reader: Reader, config: StreamConfig) -> None:
        """Hand a reader its pieces as they come, to the end.

        Raises `ConsumerLeft`, and `StreamBroken` if what it has become void, and it did not say that it may.
        """
        while True:
            while self._has_more_for(reader):
                await reader.terms.put(self._next(reader), config)
            if self._has_ended:
                return
            self._came.clear()
            await self._came.wait()

    def _has_more_for(self, reader: Reader) -> bool:
        if reader.position < self._begin:
            # Of what is void, a reader that has some of it is told that it is.
            reader.position = self._begin - reader.has_begun
            reader.wants_whole = False
        if reader.wants_whole:
            reader.position = self._count
        return reader.position < self._count

    def _next(self, reader: Reader) -> Any:
        if reader.position < self._dropped:
            raise ConsumerLeft(
                f"a reader of the stream is more than {self._max_kept // 2} pieces behind; read it faster"
            )
        piece = self._kept[reader.position - self._dropped]
        reader.position += 1
        self._taken.set()
        if isinstance(piece, Restarted) and not reader.takes_void:
            raise StreamBroken(piece.provider, Transient(piece.error, provider=piece.provider))
        reader.has_begun = True
        return piece

    def close(self) -> None:
        """Take no more pieces, because no reader is left: the call ends."""
        self._is_closed = True
        self._taken.set()

    def end(self) -> None:
        """Note that no more pieces come."""
        self._has_ended = True
        self._came.set()

    def __repr__(self) -> str:
        return f"<SharedStream of {self._count} pieces, {len(self._readers)} readers>"
