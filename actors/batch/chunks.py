"""The items of a sync or async source in chunks of equal size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from actors.batch.fan_out import EndOfSource, Source
from actors.validation import check_count

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence

T = TypeVar("T")


class Chunks(Generic[T]):
    """The items in chunks of `size`, each with the index of its first item; the last chunk may be smaller.

    An error of the source is raised after all items before it.
    """

    def __init__(self, items: Iterable[T] | AsyncIterable[T], size: int) -> None:
        check_count("batch_size", size, unit="item")
        self.error: Exception | None = None
        self._source = Source(items)
        self._size = size
        self._start = 0
        self._next: list[T] = []

    def __aiter__(self) -> AsyncIterator[tuple[int, Sequence[T]]]:
        return self

    async def __anext__(self) -> tuple[int, Sequence[T]]:
        while len(self._next) < self._size and self.error is None:
            try:
                _, item = await self._source.next()
            except EndOfSource:
                break
            except Exception as error:  # noqa: BLE001 - raised below, after the items before it.
                self.error = error
            else:
                self._next.append(item)
        if not self._next:
            if self.error is not None:
                raise self.error
            raise StopAsyncIteration
        chunk, start = self._next, self._start
        self._next, self._start = [], start + len(chunk)
        return start, chunk

    def partial(self) -> Iterable[tuple[int, T]]:
        """Return the items, with their indices, of a chunk that was begun and not filled."""
        return enumerate(self._next, self._start)

    async def aclose(self) -> None:
        """Close the source, if it is a generator."""
        await self._source.aclose()
