"""Reads one stream of a model while it comes: hands its pieces to their consumer, and keeps the answer so far."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from actors.model_calls.answer import MalformedAnswer, fields_of, read_answer, text_in
from actors.model_calls.assembly import Assembler, assembler_of
from actors.model_calls.sse import MAX_EVENT_BYTES, EventDecoder
from actors.model_calls.stream_writers import stream_writer_of
from actors.tariffs.cut_usage import PartialAnswer
from actors.transports.http_json import decode_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from actors.model_calls.answer import ModelAnswer
    from actors.model_calls.deltas import Delta
    from actors.model_calls.request import Form
    from actors.model_calls.sse import ServerSentEvent
    from actors.model_calls.stream_parts import StreamPart
    from actors.model_calls.translation import Translation
    from actors.transports.streaming import CallStream

MAX_PENDING = 1_000
"""The events that may come before the first piece of an answer; more are malformed."""
BEFORE_JSON = b"\xef\xbb\xbf \t\r\n"
"""What may stand before a JSON object: a byte order mark, and blanks."""
END_GRACE = 0.25
"""Seconds to wait for the end of a body whose answer is complete, so that its connection can be used again."""


class StreamPiece(msgspec.Struct, frozen=True):
    """One event of a stream: `data` as its provider sent it, or translated, and the `deltas` of the answer in it."""

    data: dict[str, Any]
    deltas: tuple[Delta, ...] = ()


class ModelStream:
    """Reads the body of one stream; a `BodyReader`.

    A body that is no stream, but one JSON object, is read whole: so answer providers that do not stream, and those that
    refuse with a 2xx. An answer has at most `max_bytes`, whatever its events have around it.

    Nothing goes to the consumer before the first delta of the answer: until then another provider may still be asked.
    `error` is what the provider reported in mid-stream, and `problem` says what is malformed; None if nothing is.
    """

    def __init__(self, sent: Translation, stream: CallStream, *, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self.form: Form = sent.request.form
        self.stream = stream
        self.gap = stream.gap
        self.first = stream.first
        self.on_first: Callable[[], None] | None = None
        self.error: dict[str, Any] | None = None
        self.problem: str | None = None
        self._sent = sent
        self._assembler: Assembler = assembler_of(sent.request.form, answers=_answers(sent.request.body))
        self._writer = None if sent.is_kept else stream_writer_of(sent.asked.form)
        self._has_begun = False
        self._decoder = EventDecoder()
        self._pending: list[StreamPiece] = []
        self._max_bytes = max_bytes
        self._written = self._kept = 0
        """The bytes of the answer so far, and of what is kept besides: figures, and what waits for its first piece."""
        self._is_whole: bool | None = None
        """Whether the body is one JSON object; None before it has begun."""
        self._whole_body = bytearray()
        self._whole: dict[str, Any] | None = None

    @property
    def whole_body(self) -> bytes:
        """The body, if it is no stream; an error in it need not have the form of an answer."""
        return bytes(self._whole_body)

    @property
    def is_complete(self) -> bool:
        """Whether the whole answer has come, though its figures and its last event may be missing."""
        return self._assembler.is_complete or self._assembler.may_end or self._whole is not None

    @property
    def has_failed_before_first(self) -> bool:
        """Whether the provider has reported an error, and nothing of an answer."""
        return self.error is not None and self.stream.first_at is None

    def body(self) -> dict[str, Any]:
        """Return the answer so far, as a body without a stream."""
        return self._assembler.body() if self._whole is None else self._whole

    def answer(self) -> ModelAnswer:
        """Return what the whole body answers; raises `MalformedAnswer` if it is none."""
        if self.problem is not None:
            raise MalformedAnswer(self.problem)
        return read_answer(self.form, self.body())

    def written(self) -> PartialAnswer:
        """Return how much of the answer has come."""
        seconds, behind = self.stream.read_for(asyncio.get_running_loop().time())
        return PartialAnswer(self._written, seconds, behind)

    def body_as_asked(self) -> dict[str, Any]:
        """Return the answer so far in the form of the request, or as it came if that form cannot say it."""
        body = self.body()
        try:
            return self._sent.answer(body)[0]
        except MalformedAnswer:
            return body

    async def read(self, chunks: AsyncIterator[bytes]) -> None:
        """Read to the end of the answer, or to an error in it. Raises `OSError` if it breaks off.

        An answer that is whole stands, whatever becomes of what is read behind it.
        """
        try:
            async for chunk in chunks:
                if not self._keeps(chunk) and await self._take(chunk):
                    if self.error is None:
                        await self._end()
                        await _read_end(chunks)
                    return
            if self._is_whole:
                await self._read_whole()
                return
        except OSError:
            if not self.is_complete:
                raise
        except ValueError as malformed:  # Or an event is too long.
            if not self.is_complete:
                self.problem = str(malformed)
                return
        if not self.is_complete:
            raise ConnectionError("the stream ended before the answer was whole")
        await self._end()

    async def _take(self, chunk: bytes) -> bool:
        """Take the events that end in a chunk, up to an error or the end of the answer; tell whether there was one."""
        for event in self._decoder.feed(chunk):
            part = self._assembler.feed(event)
            self._count(event, part)
            await self._hand_on(part)
            self.error = part.error
            if part.error is not None or self._assembler.is_complete:
                return True
        return False

    def _keeps(self, chunk: bytes) -> bool:
        """Keep a chunk of a body that is one JSON object; False for one of a stream, whose lines never begin so."""
        if self._is_whole is None and (begins := chunk.lstrip(BEFORE_JSON)):
            self._is_whole = begins.startswith((b"{", b"["))
        if self._is_whole:
            self._whole_body += chunk
            if len(self._whole_body) > self._max_bytes:
                raise MalformedAnswer(f"more than {self._max_bytes} bytes")
        return bool(self._is_whole)

    async def _read_whole(self) -> None:
        try:
            body = fields_of(await decode_json(bytes(self._whole_body), deadline=math.inf), "the answer")
        except (msgspec.DecodeError, RecursionError) as error:
            raise MalformedAnswer(str(error)) from error
        if body.get("error"):
            self.error = body
        else:
            self._whole = body

    def _count(self, event: ServerSentEvent, part: StreamPart) -> None:
        """Count what is kept of an event. Raises `MalformedAnswer` if the answer is too large."""
        is_waiting = self.stream.first_at is None and not part.deltas
        self._written += part.written
        self._kept += len(event.data) if is_waiting else part.kept
        if self._written + self._kept > self._max_bytes:
            raise MalformedAnswer(f"more than {self._max_bytes} bytes")

    async def _hand_on(self, part: StreamPart) -> None:
        if not part.data:
            return
        pieces = self._pieces_of(part)
        if self.stream.first_at is None:
            if not part.deltas:
                if len(self._pending) >= MAX_PENDING:
                    raise MalformedAnswer(f"more than {MAX_PENDING} events before the first piece of the answer")
                self._pending += pieces
                return
            if self.on_first is not None:
                self.on_first()
            pending, self._pending = self._pending, []
            pieces = pending + pieces
        for piece in pieces:
            await self.stream.put(piece)
        # Whether it is may take a look at all that came, and it stays so.
        if not self.stream.is_committed and self._assembler.is_committed:
            self.stream.commit()

    def _pieces_of(self, part: StreamPart) -> list[StreamPiece]:
        """Return the events of the caller's form that say what an event of the provider says."""
        writer = self._writer
        if writer is None:
            return [StreamPiece(part.data, part.deltas)]
        pieces: list[StreamPiece] = []
        if part.deltas and not self._has_begun:
            self._has_begun = True
            body = self._assembler.body()
            pieces += [StreamPiece(one) for one in writer.begin(text_in(body, "id"), text_in(body, "model"))]
        for delta in part.deltas:
            *before, last = writer.write(delta)
            pieces += [*map(StreamPiece, before), StreamPiece(last, (delta,))]
        return pieces

    async def _end(self) -> None:
        """Hand on the end in the caller's form; a form that cannot say the answer has none."""
        if self._writer is None or not self._has_begun:
            return
        with suppress(MalformedAnswer):
            body, _ = self._sent.answer(self._assembler.body())
            for event in self._writer.end(body):
                await self.stream.put(StreamPiece(event))


def _answers(body: dict[str, Any]) -> int:
    """Return how many answers a request asks for."""
    asked = body.get("n")
    return asked if type(asked) is int and asked > 0 else 1


async def _read_end(chunks: AsyncIterator[bytes]) -> None:
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(END_GRACE):
            async for _ in chunks:
                pass
