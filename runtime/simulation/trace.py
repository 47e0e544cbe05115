"""The record of a run: its last events as lines, and a digest of every step, by which two runs are compared."""

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
"""So many of the last entries are kept."""
CHUNK = 4_096
ADDRESS = re.compile(r" at 0x[0-9a-f]+|0x[0-9a-f]{6,}")
MAX_WIDTH = 200


class Entry(msgspec.Struct, frozen=True):
    """One event at `at` seconds; its text is made when it is read."""

    at: float
    what: str
    subject: Any
    detail: Any = None

    def __str__(self) -> str:
        subject = str(getattr(self.subject, "path", self.subject))
        parts = (self.what, subject, "" if self.detail is None else ADDRESS.sub("", safe_repr(self.detail)))
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
        """Record one step by its number, for the digest alone."""
        self._encode = msgspec.msgpack.Encoder(enc_hook=self._encode_other, order="deterministic").encode
        self._paths: dict[ActorRef[Any], str] = {}

    def add(self, what: str, subject: Any, detail: Any = None) -> None:
        """Record an event: what happened, to which subject, with a detail."""
        now = self._now()
        self._entries.append(Entry(now, what, subject, detail))
        try:
            encoded = self._encode((what, subject, detail))
        except (TypeError, ValueError, RecursionError, OverflowError):
            encoded = b"tuple"  # Such as a dictionary whose keys are not text.
        self.step(now)
        self.step(-1.0 - zlib.crc32(encoded))
        if len(self._tape) >= CHUNK:
            self.flush()

    @property
    def digest(self) -> str:
        """32 hexadecimal digits over all steps and events in their order; runs with the same digest are the same."""
        self.flush()
        return self._hash.hexdigest()

    def tail(self, count: int) -> list[str]:
        """Return the last entries as lines."""
        return [str(entry) for entry in list(self._entries)[max(0, len(self._entries) - count) :]]

    def _encode_other(self, value: Any) -> str:
        """Return the text that stands in the digest for a value that cannot be encoded; it never holds an address.

        Nearly all such values are refs, and the same ones again and again. Their paths take long to make.
        """
        if not isinstance(value, ActorRef):
            return type(value).__qualname__
        ref = cast("ActorRef[Any]", value)
        path = self._paths.get(ref)
        if path is None:
            path = self._paths[ref] = ref.path
        return path

    def flush(self) -> None:
        """Add the recorded steps to the digest, so that they take no more memory."""
        self._hash.update(self._tape.tobytes())
        del self._tape[:]
        self._paths.clear()  # Or it would keep actors alive that have ended.

    def __iter__(self) -> Any:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Trace {len(self)} entries>"


def safe_repr(value: Any) -> str:
    """Return the repr of a value; if that raises, a text instead, so that the trace can be read all the same."""
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - any error is a mistake in the value's class.
        return f"<{type(value).__qualname__}, whose repr raises {type(error).__name__}>"
