"""The stream of a call: pieces of the answer go to a consumer while the call is under way; the reply comes at its end.

A call with a stream holds its place and its reservation until it has ended. Pieces that come while the consumer does
not take them wait in a channel of bounded length; when it is full, nothing more is read from the provider.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, get_args

import msgspec

from actors.errors.families import ConsumerLeft

if TYPE_CHECKING:
    from collections.abc import Callable

CLOCK_ERROR = 1e-3
"""Seconds by which a timer may be early."""
CHANNEL_CAPACITY = 64
"""The pieces that wait for their consumer at most."""


OnLeave: TypeAlias = Literal["cancel", "finish"]
"""What becomes of a stream if its last consumer has left: its call ends, or goes on to its end without one."""
ON_LEAVE: tuple[OnLeave, ...] = get_args(OnLeave)


def _check(on_leave: OnLeave | None, **waits: float | None) -> None:
    for name, seconds in waits.items():
        if seconds is not None and not seconds > 0:
            raise ValueError(f"{name} must be > 0 seconds, got {seconds!r:.100}")
    check_on_leave(on_leave)


def check_on_leave(on_leave: OnLeave | None) -> None:
    """Raise `ValueError` if a stream cannot do this when its consumer has left."""
    if on_leave is not None and on_leave not in ON_LEAVE:
        raise ValueError(f'on_leave must be "cancel" or "finish", got {on_leave!r:.100}')


class StreamSink(Protocol):
    """Where the pieces of an answer go."""

    @property
    def is_committed(self) -> bool:
        """Whether a consumer has said that it acts on what came (`PieceChannel.commit`)."""
        ...

    async def put(self, piece: Any, *, patience: float) -> None:
        """Hand on one piece; waits while the consumer is slow.

        Raises `ConsumerLeft` if it takes no more, or takes nothing for `patience` seconds.
        """
        ...


class StreamConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How long a stream waits, in seconds, unless its request says: `gap` between two pieces, while they are read.

    A provider that is silent for less is not to blame, however short the gap of a request. A consumer that takes
    nothing for `patience` has left. `on_leave` says what becomes of the call then: with "finish" it goes on to its end,
    within the deadline of its request, without a consumer. The whole stream has `timeout`; its first piece has that of
    its listing.
    """

    gap: float = 30.0
    patience: float = 60.0
    timeout: float = 600.0
    on_leave: OnLeave = "cancel"

    def __post_init__(self) -> None:
        _check(self.on_leave, gap=self.gap, patience=self.patience, timeout=self.timeout)


DEFAULT_STREAMS = StreamConfig()


class StreamTerms(msgspec.Struct, frozen=True, kw_only=True):
    """That an answer is wanted as a stream: its pieces go to `sink`; None is what the market says.

    `first` is the seconds that a provider has until the first piece, if its listing does not give it fewer; `timeout`
    is for the whole stream.
    """

    sink: StreamSink
    gap: float | None = None
    patience: float | None = None
    first: float | None = None
    timeout: float | None = None
    on_leave: OnLeave | None = None

    def __post_init__(self) -> None:
        _check(self.on_leave, gap=self.gap, patience=self.patience, first=self.first, timeout=self.timeout)

    async def put(self, piece: Any, config: StreamConfig) -> None:
        """Hand one piece to the consumer; waits while it is slow. Raises `ConsumerLeft`."""
        await self.sink.put(piece, patience=config.patience if self.patience is None else self.patience)

    def finishes(self, config: StreamConfig) -> bool:
        """Tell whether the call goes on if its consumer has left."""
        return (self.on_leave or config.on_leave) == "finish"


class Restarted(msgspec.Struct, frozen=True, kw_only=True):
    """A piece that makes all before it void: the stream of `provider` broke off, and the next one begins anew."""

    provider: str
    error: str


class WholeAnswer(msgspec.Struct, frozen=True):
    """The one piece of an answer that did not come as a stream: its whole output."""

    output: Any


class CallStream:
    """The stream of one call: `first` seconds may pass until its first piece, and `gap` between two of them.

    A transport that streams calls `put` for each piece, and `commit` once the consumer may have acted on what came. If
    the call ends early, however that is, it sets `partial`: the `ProviderReply` that the pieces so far would be, with
    the cost or usage that a call cut off there has.
    """

    __slots__ = (
        "_config",
        "_ended",
        "_last_at",
        "_loop",
        "_terms",
        "_waited",
        "first",
        "first_at",
        "gap",
        "is_committed",
        "on_first",
        "partial",
        "pieces",
        "told",
    )

    def __init__(self, terms: StreamTerms, *, first: float, config: StreamConfig = DEFAULT_STREAMS) -> None:
        self.first, self.gap = first, config.gap if terms.gap is None else terms.gap
        self.first_at: float | None = None
        """When the first piece came, in loop time; None before."""
        self._last_at = self._waited = 0.0
        self.pieces = 0
        self.is_committed = False
        self.on_first: Callable[[], None] | None = None
        """Called when the first piece comes."""
        self.partial: Any = None
        self.told: Any = None
        """What its transport returned or raised, also if its request was cancelled in the same moment."""
        self._terms, self._config = terms, config
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def put(self, piece: Any) -> None:
        """Hand one piece to the consumer; waits while it is slow. Raises `ConsumerLeft`."""
        now = self._loop.time()
        if self.first_at is None:
            self.first_at = now
            if self.on_first is not None:
                self.on_first()
        else:
            self._waited += now - self._last_at
        self.pieces += 1
        try:
            await self._terms.put(piece, self._config)
        finally:
            # The time for which its consumer was slow is no silence of its provider.
            self._last_at = self._loop.time()

    @property
    def interval(self) -> float | None:
        """The mean seconds between two pieces, without those in which its consumer was slow; None before the second."""
        return self._waited / (self.pieces - 1) if self.pieces > 1 else None

    def read_for(self, until: float) -> tuple[float, float]:
        """Return the seconds since the first piece in which pieces were waited for, and those of its slow consumer."""
        if self.first_at is None:
            return 0.0, 0.0
        waited = self._waited + until - self._last_at
        return waited, max(0.0, until - self.first_at - waited)

    def was_coming(self, until: float) -> bool:
        """Tell whether pieces came until then: it was silent for no longer than it had been heard."""
        return self.first_at is not None and until - self._last_at <= self._last_at - self.first_at

    def was_cut_short(self, until: float, *, began: float) -> bool:
        """Tell whether it was given up after a silence that only its own request found too long."""
        if self.first_at is None:
            return self._terms.first == self.first and until - began >= self.first - CLOCK_ERROR
        if self.gap >= self._config.gap:
            return False
        return self.gap - CLOCK_ERROR <= until - self._last_at < self._config.gap

    def end(self, told: Any) -> None:
        """Note that its transport is done with it: `partial` is final.

        `told` is the `ProviderReply` that it returned, or the `CallFailed` that it raised; None if it was cancelled.
        """
        self.told = told
        self._ended.set()

    async def until_ended(self, *, within: float) -> None:
        """Wait until its transport is done with it, for `within` seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._ended.wait()

    def commit(self) -> None:
        """Note that the consumer may have acted on what came, so that it cannot be taken back."""
        self.is_committed = True

    def __repr__(self) -> str:
        return f"<CallStream {self.pieces} pieces{', committed' if self.is_committed else ''}>"


class PieceChannel:
    """Carries pieces from a call to their consumer, at most `capacity` of them at once.

    A consumer that takes nothing for the patience of a piece while the channel is full has left, and so has one that
    calls `leave`.
    """

    def __init__(self, *, capacity: int = CHANNEL_CAPACITY) -> None:
        self._capacity = capacity
        self._pieces: deque[Any] = deque()
        self._taken: asyncio.Event = asyncio.Event()
        self._came: asyncio.Event = asyncio.Event()
        self._has_left = self._has_ended = False
        self.is_committed = False
        """Whether its consumer has said that it acts on what came."""

    def commit(self) -> bool:
        """Note that the consumer acts on what came; returns False, and notes nothing, if that has become void."""
        if not any(isinstance(piece, Restarted) for piece in self._pieces):
            self.is_committed = True
        return self.is_committed

    async def put(self, piece: Any, *, patience: float = DEFAULT_STREAMS.patience) -> None:
        """Add a piece; waits while the channel is full. Raises `ConsumerLeft` if the consumer takes no more."""
        if not self._has_left:
            self._pieces.append(piece)
            self._came.set()
            if len(self._pieces) >= self._capacity:
                await self._wait_for_room(patience)
        if self._has_left:
            raise ConsumerLeft

    async def _wait_for_room(self, patience: float) -> None:
        self._taken.clear()
        try:
            async with asyncio.timeout(patience):
                await self._taken.wait()
        except TimeoutError:
            self.leave()

    async def get(self) -> Any:
        """Take the next piece; waits for it. Raises StopAsyncIteration when there are no more."""
        while not self._pieces:
            if self._has_ended:
                raise StopAsyncIteration
            self._came.clear()
            await self._came.wait()
        piece = self._pieces.popleft()
        self._taken.set()
        return piece

    def leave(self) -> None:
        """Take no more: what has come is dropped, and the call ends."""
        self._has_left = True
        self._pieces.clear()
        self._taken.set()

    def end(self) -> None:
        """Note that no more pieces come."""
        self._has_ended = True
        self._came.set()

    def __len__(self) -> int:
        return len(self._pieces)
