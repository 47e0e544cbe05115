"""What happened in a run: its last events for people, and a digest of every step for comparing it with another run."""

from __future__ import annotations

import hashlib
import re
import zlib
from array import array
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import msgspec

from runtime.ref import ActorRef

if TYPE_CHECKING:
    from collections.abc import Callable

KEPT = 1_000
"""The last entries that are kept for people."""
CHUNK = 4_096
ADDRESS = re.compile(r" at 0x[0-9a-f]+|0x[0-9a-f]{6,}")
MAX_WIDTH = 200


class Entry(msgspec.Struct, frozen=True):
    """One thing that happened, at `at` seconds; its text is made when somebody reads it."""

    at: float
    what: str
    subject: Any
    detail: Any = None

    def __str__(self) -> str:
        subject = str(getattr(self.subject, "path", self.subject))
        parts = (self.what, subject, "" if self.detail is None else ADDRESS.sub("", shown(self.detail)))
        text = " ".join(part for part in parts if part)
        return f"{self.at:12.6f} {text if len(text) <= MAX_WIDTH else text[: MAX_WIDTH - 1] + '…'}"


class Trace:
    """The record of one run. Iterating it gives the last entries, the oldest first."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._hash = hashlib.blake2b(digest_size=16)
        # One number for each step; floats hold them, and times, exactly.
        self._tape = array("d")
        self.step = self._tape.append
        """Takes down that something had its turn, by the number it was born with; nobody reads of it one by one."""
        self._encode = msgspec.msgpack.Encoder(enc_hook=self._stand_in, order="deterministic").encode
        self._paths: dict[ActorRef[Any], str] = {}

    def add(self, what: str, subject: Any, detail: Any = None) -> None:
        """Take down what happened to whom."""
        now = self._now()
        self._entries.append(Entry(now, what, subject, detail))
        self.step(now)
        self.step(-1.0 - zlib.crc32(self.encoded((what, subject, detail))))
        if len(self._tape) >= CHUNK:
            self.flush()

    def encoded(self, value: Any) -> bytes:
        """Return a value as bytes that are the same in every process."""
        try:
            return self._encode(value)
        except (TypeError, ValueError, RecursionError, OverflowError):
            return type(value).__qualname__.encode()  # Such as a dictionary with keys that are no text.

    @property
    def digest(self) -> str:
        """Tell two runs apart: 32 hexadecimal digits over everything that had its turn, in its order."""
        self.flush()
        return self._hash.hexdigest()

    def tail(self, count: int) -> list[str]:
        """Return the last entries as lines."""
        return [str(entry) for entry in list(self._entries)[max(0, len(self._entries) - count) :]]

    def _stand_in(self, value: Any) -> str:
        """Return what a digest knows of a value that cannot be encoded: nothing that depends on where it is in memory.

        Nearly all are refs, and the same again and again; their paths are long to make.
        """
        if not isinstance(value, ActorRef):
            return type(value).__qualname__
        ref = cast("ActorRef[Any]", value)
        path = self._paths.get(ref)
        if path is None:
            path = self._paths[ref] = ref.path
        return path

    def flush(self) -> None:
        """Turn what was taken down so far into the digest, so that it takes no more memory."""
        self._hash.update(self._tape.tobytes())
        del self._tape[:]
        self._paths.clear()  # Or it would keep alive whoever has ended.

    def __iter__(self) -> Any:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Trace {len(self)} entries>"


def shown(value: Any) -> str:
    """Return the repr of a value; one that cannot be shown must not hide what the trace is read for."""
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a mistake of the value's class.
        return f"<{type(value).__qualname__}, whose repr raises {type(error).__name__}>"
