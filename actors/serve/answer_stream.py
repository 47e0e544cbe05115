"""Sends an answer as server-sent events: the status waits for the first piece, comments fill long silences."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

from actors.errors.families import BadAnswer, CallFailed
from actors.model_calls.answer import MalformedAnswer
from actors.serve.problems import problem_of
from actors.serve.replies import (
    COMMENT,
    DONE,
    bad_answer_headers,
    events_of,
    is_usage,
    lost_comment,
    named_event,
    spent_comment,
    with_spent,
    without_usage,
    written,
)
from actors.transports.model_stream import StreamPiece
from actors.transports.streaming import Restarted, WholeAnswer
from runtime import RuntimeFault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.serve.config import DoorConfig
    from actors.serve.door_request import DoorRequest
    from actors.serve.exchange import DoorExchange
    from actors.supervisor.messages import SmartResult
    from actors.supervisor.streaming import RequestStream

HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}


MAX_HELD = 4_096
"""The pieces that are held back at most: if more come in that time, they are sent before it is over."""


class NextPieces:
    """Reads a stream one piece after another, and can wait for the next one without taking it."""

    def __init__(self, stream: RequestStream) -> None:
        self._stream = stream
        self._coming: asyncio.Future[Any] | None = None

    async def has_next(self, within: float) -> bool:
        """Tell whether the next piece, or the end, comes within so many seconds."""
        if self._coming is None:
            # Its own task: to cut off the wait for a stream's end would end its request.
            self._coming = asyncio.ensure_future(anext(self._stream, None))
        await asyncio.wait({self._coming}, timeout=None if within == math.inf else max(0.0, within))
        return self._coming.done()

    async def next(self) -> Any:
        """Take the next piece; None at the end."""
        if self._coming is None:
            return await anext(self._stream, None)
        piece = await self._coming
        self._coming = None
        return piece

    async def close(self) -> None:
        """Wait for no piece any more."""
        if self._coming is not None:
            await _ended(self._coming)


def bearable(seconds: float, asked: DoorRequest) -> float:
    """Return so many seconds of silence, or fewer if its client may give up by then."""
    return min(seconds, asked.silence / 2)


async def begin_stream(exchange: DoorExchange, request_id: str) -> None:
    """Send the status of a stream."""
    await exchange.begin(200, {**HEADERS, "x-request-id": request_id})


async def wait_aloud(asked: DoorRequest, exchange: DoorExchange, *, config: DoorConfig, request_id: str) -> None:
    """Tell the client of a stream that its request waits in line, until this is cancelled."""
    await asyncio.sleep(bearable(config.commit_after, asked))
    await begin_stream(exchange, request_id)
    while True:
        await exchange.write(COMMENT)
        await asyncio.sleep(bearable(config.comment_every, asked))


class AnswerStream:
    """One answer that goes out as a stream."""

    def __init__(
        self, asked: DoorRequest, stream: RequestStream, exchange: DoorExchange, *, config: DoorConfig, request_id: str
    ) -> None:
        self._asked, self._stream, self._exchange = asked, stream, exchange
        self._request_id = request_id
        self._hold_first = config.hold_first
        self._pieces = NextPieces(stream)
        self._commit_after = bearable(config.commit_after, asked)
        self._comment_every = bearable(config.comment_every, asked)
        self._deadline = asyncio.get_running_loop().time() + asked.timeout
        self._usage: dict[str, Any] | None = None

    async def run(self) -> SmartResult | None:
        """Send it to its end, and return its result; None for an answer of no use. Raises `Problem` for a failure."""
        try:
            async with self._stream:
                try:
                    await self._send()
                finally:
                    await self._pieces.close()
                return self._stream.result
        except (CallFailed, RuntimeFault) as error:
            await self._fail(error)
            return None

    async def _send(self) -> None:
        first = asyncio.ensure_future(self._first_pieces())
        try:
            await asyncio.wait({first}, timeout=self._commit_after)
            if not first.done() and not self._exchange.has_begun:
                await self._begin()
            while not first.done():
                await self._exchange.write(COMMENT)
                await asyncio.wait({first}, timeout=self._comment_every)
            pieces = first.result()
        finally:
            await _ended(first)
        if not self._exchange.has_begun:
            await self._begin()
        commenting = asyncio.ensure_future(self._comment())
        try:
            while pieces:
                for data in (data for piece in pieces for data in self._data_of(piece)):
                    await self._exchange.write(data)
                pieces = [piece] if (piece := await self._pieces.next()) is not None else []
        finally:
            await _ended(commenting)
        await self._end()

    async def _first_pieces(self) -> list[Any]:
        """Return what comes before anything is sent: the first piece, or those of the time for which they are held."""
        pieces, loop, hold = self._pieces, asyncio.get_running_loop(), self._hold_first
        if hold is None:
            return [] if (piece := await pieces.next()) is None else [piece]
        held: list[Any] = []
        until = math.inf
        while True:
            if not await pieces.has_next(until - loop.time()) or len(held) >= MAX_HELD:
                if self._stream.commit():
                    return held
                until = math.inf  # What is held is void, and what says so comes next.
            piece = await pieces.next()
            if piece is None:
                return held
            if isinstance(piece, Restarted):
                held.clear()
                until = math.inf
                continue
            held.append(piece)
            until = min(until, loop.time() + hold)

    async def _begin(self) -> None:
        await begin_stream(self._exchange, self._request_id)

    async def _comment(self) -> None:
        """Send a comment after each silence, so that nothing between takes the connection for dead."""
        loop, every = asyncio.get_running_loop(), self._comment_every
        while True:
            await asyncio.sleep(max(0.0, self._exchange.sent_at + every - loop.time()))
            if loop.time() - self._exchange.sent_at >= every:
                await self._exchange.write(COMMENT)

    async def _end(self) -> None:
        result, form = self._stream.result, self._asked.form
        end = b""
        if self._usage is not None:
            end += written(form, with_spent(self._usage, result))
        end += spent_comment(result)
        await self._exchange.write(end + DONE if form == "chat" else end, more=False)

    async def _fail(self, error: CallFailed | RuntimeFault) -> None:
        if isinstance(error, BadAnswer) and error.answer is not None and not self._exchange.events:
            # The client asked for the answer of a model, and this is one: its own form says what is wrong with it.
            await self._send_whole(error)
            return
        raise problem_of(error, is_late=asyncio.get_running_loop().time() >= self._deadline) from error

    async def _send_whole(self, error: BadAnswer) -> None:
        headers = bad_answer_headers(error)
        data = b"".join(self._data_of(WholeAnswer(error.answer.output))) + lost_comment(error.spent, error.calls)
        if not self._exchange.has_begun:
            await self._exchange.begin(200, {**HEADERS, **headers, "x-request-id": self._request_id})
        await self._exchange.write(data + DONE if self._asked.form == "chat" else data, more=False)

    def _data_of(self, piece: Any) -> Iterator[bytes]:
        """Yield a piece as the bytes that go out."""
        form = self._asked.form
        if isinstance(piece, WholeAnswer):
            try:
                events = list(events_of(form, piece.output))
            except MalformedAnswer:
                return
        elif isinstance(piece, StreamPiece):
            events = [piece.data]
        else:
            return
        for event in events:
            if form == "chat" and is_usage(event) and self._asked.wants_usage:
                self._usage = named_event(event, self._asked.name)  # It goes out with the cost, which the end tells.
                continue
            told = event if self._asked.wants_usage else without_usage(event)
            if told is not None:
                self._exchange.events += 1
                yield written(form, named_event(told, self._asked.name))


async def _ended(task: asyncio.Future[Any]) -> None:
    """Cancel a task that is not done, and wait for its end."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # What it may have raised meanwhile is of no use any more.
