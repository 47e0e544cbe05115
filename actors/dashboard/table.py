"""A table whose rows have versions, so that each viewer is sent what has changed since it last looked. Pure."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeAlias

import msgspec
from typing_extensions import TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

R = TypeVar("R", bound=msgspec.Struct)
MAX_GONE = 1_000
"""The rows that have gone and are remembered; a viewer that has missed more is sent the whole table."""
ENCODER = msgspec.json.Encoder()


Place: TypeAlias = tuple[int, int]
"""How far a viewer has come in a table: the version of the last change it has, and the one at which it was sent all."""
START: Place = (0, 0)


class Version:
    """Counts the changes of all tables of one board."""

    def __init__(self) -> None:
        self.last = 0

    def next(self) -> int:
        """Return the number of one more change."""
        self.last += 1
        return self.last


class Delta(NamedTuple):
    """What has changed in one table: the encoded rows, up to the place `seen`; `is_cut` if there is more."""

    put: dict[str, msgspec.Raw]
    gone: tuple[str, ...]
    is_all: bool
    seen: Place
    size: int
    is_cut: bool


class Versioned(Generic[R]):
    """A row as of one version; it is encoded once for all viewers, and only if one looks."""

    __slots__ = ("encoded", "row", "version")

    def __init__(self, row: R, version: int) -> None:
        self.row, self.version = row, version
        self.encoded: bytes | None = None

    def json(self) -> bytes:
        """Return the row as JSON."""
        if self.encoded is None:
            self.encoded = ENCODER.encode(self.row)
        return self.encoded


class ViewTable(Generic[R]):
    """Rows by key, at most `most`: beyond that, the one that has not changed for longest goes."""

    def __init__(self, version: Version, *, most: int) -> None:
        self._version = version
        self._most = most
        self._rows: dict[str, Versioned[R]] = {}
        """In the order of their last change."""
        self._gone: deque[tuple[int, str]] = deque()
        self._forgotten = 0
        """The version up to which it is not known any more which rows have gone."""
        self.last = 0
        """The version of the last change."""

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def rows(self) -> dict[str, R]:
        """Return all rows."""
        return {key: one.row for key, one in self._rows.items()}

    def get(self, key: str) -> R | None:
        """Return a row; None if there is none."""
        found = self._rows.get(key)
        return None if found is None else found.row

    def put(self, key: str, row: R) -> None:
        """Have this row under a key; the same row again is no change."""
        known = self._rows.get(key)
        if known is not None:
            if known.row == row:
                return
            del self._rows[key]  # It takes its place at the end.
        self.last = self._version.next()
        self._rows[key] = Versioned(row, self.last)
        if len(self._rows) > self._most:
            self.remove(next(iter(self._rows)))

    def remove(self, key: str) -> None:
        """Have no row under a key."""
        if self._rows.pop(key, None) is None:
            return
        self.last = self._version.next()
        self._gone.append((self.last, key))
        if len(self._gone) > MAX_GONE:
            self._forgotten, _ = self._gone.popleft()

    def keep_only(self, keys: set[str]) -> None:
        """Remove the rows under all other keys."""
        for key in [one for one in self._rows if one not in keys]:
            self.remove(key)

    def since(self, seen: Place, *, room: int) -> Delta | None:
        """Return what has changed after a place, in at most `room` bytes of rows; None if nothing has."""
        after, began = seen
        if after >= self.last:
            return None
        is_all = not after or max(after, began) < self._forgotten
        if is_all:
            after, began = 0, self.last
        put, size, is_cut = dict[str, msgspec.Raw](), 0, False
        upto = after
        for key, one in reversed(list(self._changed(after))):
            encoded = one.json()
            size += len(key) + len(encoded) + 6
            if size > room:
                is_cut = True
                break
            put[key], upto = msgspec.Raw(encoded), one.version
        gone = () if is_all else tuple(key for version, key in self._gone if version > after)
        return Delta(put, gone, is_all, (upto if is_cut else self.last, began), size, is_cut)

    def _changed(self, after: int) -> Iterator[tuple[str, Versioned[R]]]:
        for key, one in reversed(self._rows.items()):
            if one.version <= after:
                return
            yield key, one
