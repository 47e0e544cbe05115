"""Server-sent events, decoded from the chunks of a body as they arrive. Pure.

Source: the section "Interpreting an event stream" of the HTML standard.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_EVENT_BYTES = 4 * 1024 * 1024
"""A longer event is malformed: nothing grows without bound while its end does not come."""
LINE_ENDS = re.compile(rb"[\r\n]+")
"""Taken together, as one that is behind another ends an event, and all further ones say nothing."""
ONE_LINE_END = (b"\n", b"\r\n", b"\r")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class ServerSentEvent(NamedTuple):
    """One event: its type, "message" if it states none, and its data."""

    event: str
    data: str


class EventDecoder:
    r"""Decodes one stream of server-sent events.

    >>> decoder = EventDecoder()
    >>> decoder.feed(b": a comment\n\ndata: one\ndata: two")
    []
    >>> decoder.feed(b"\n\nevent: ping\ndata: {}\r\n\r\n")
    [ServerSentEvent(event='message', data='one\ntwo'), ServerSentEvent(event='ping', data='{}')]
    """

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._pending = bytearray()
        self._searched = 0
        """The bytes of these in which there is no end of a line, so that a long line is searched once."""
        self._is_first = True
        self._type = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Return the events that end in this chunk. Raises ValueError if one is too long."""
        pending = self._pending
        pending += chunk
        if self._is_first:
            if len(pending) < len(BYTE_ORDER_MARK) and BYTE_ORDER_MARK.startswith(bytes(pending)):
                return []
            self._is_first = False
            if pending.startswith(BYTE_ORDER_MARK):
                del pending[: len(BYTE_ORDER_MARK)]
        events: list[ServerSentEvent] = []
        start = 0
        for run in LINE_ENDS.finditer(pending, self._searched):
            ends, stop = run.group(), run.end()
            if stop == len(pending) and ends.endswith(b"\r"):
                # The other half of the line's end may come with the next chunk.
                ends, stop = ends[:-1], stop - 1
                if not ends:
                    break
            line = bytes(pending[start : run.start()])
            if line:
                self._take_line(line)
            if (not line or ends not in ONE_LINE_END) and (event := self._dispatch()) is not None:
                events.append(event)
            start = stop
        del pending[:start]
        self._searched = len(pending) - pending.endswith(b"\r")
        if len(pending) + self._size > self._max_event_bytes:
            raise ValueError(f"an event of more than {self._max_event_bytes} bytes")
        return events

    def _take_line(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value.decode(errors="replace"))
            self._size += len(value) + 1
        elif field == b"event":
            self._type = value.decode(errors="replace")

    def _dispatch(self) -> ServerSentEvent | None:
        kind, data = self._type, self._data
        self._type, self._data, self._size = "", [], 0
        return ServerSentEvent(kind or "message", "\n".join(data)) if data else None
