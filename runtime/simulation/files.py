"""Files that end in the middle of a write, as after a power cut."""

from __future__ import annotations

import errno
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Protocol

from runtime.simulation.world import Fault

if TYPE_CHECKING:
    from runtime.simulation.world import World


class Writable(Protocol):
    """A file opened for writing in binary mode, or a buffer."""

    def write(self, data: bytes, /) -> int | None: ...
    def flush(self) -> None: ...


class WriteCut(Fault, frozen=True, kw_only=True):
    """The first write to `file` (a name or a pattern) from `at` on ends in the middle; every later one fails."""

    file: str = "*"

    @property
    def target(self) -> tuple[str, str]:
        return "file", self.file


class FragileFile:
    """A file that passes on what is written to `file`, until a `WriteCut` of its name is applied.

    The write after that stops in the middle: a beginning of the data arrives, of a length drawn by chance. It raises
    OSError, and so does every later write. A reader of the file then finds what it would find after a power cut.
    """

    def __init__(self, world: World, name: str, file: Writable) -> None:
        self.name = name
        self.is_cut = False
        self._world = world
        self._file = file
        world.declare("file", name)

    def write(self, data: bytes) -> int:
        """Write all of `data` and return its length, or raise OSError after a part of it."""
        self._fail_if_cut()
        if any(fnmatchcase(self.name, fault.file) for fault in self._world.active(WriteCut)):
            kept = int(self._world.roll() * len(data))
            self._world.trace.add("fault: write cut", self.name, f"{kept} of {len(data)} bytes")
            self._file.write(data[:kept])
            self._file.flush()
            self.is_cut = True
            self._fail_if_cut()
        self._file.write(data)
        return len(data)

    def flush(self) -> None:
        """Flush the file below; raises OSError once it is cut."""
        self._fail_if_cut()
        self._file.flush()

    def _fail_if_cut(self) -> None:
        if self.is_cut:
            raise OSError(errno.EIO, "the file was cut off in the middle of a write", self.name)

    def __repr__(self) -> str:
        return f"<FragileFile {self.name!r}{', cut off' if self.is_cut else ''}>"
