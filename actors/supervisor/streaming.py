"""What callers use for an answer that comes as a stream: its pieces as they come, and the result at its end."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from actors.ledger.keys import own_id
from actors.supervisor.client import ANSWER_GRACE
from actors.supervisor.options import DEFAULT_OPTIONS, RequestOptions
from actors.transports.streaming import PieceChannel, StreamTerms
from actors.validation import says_option_names
from runtime import ActorRef

if TYPE_CHECKING:
    from types import TracebackType

    from actors.limits.class_queue import Priority
    from actors.money import Amount
    from actors.supervisor.messages import AfterCut, SmartRequest, SmartResult
    from actors.transports.streaming import OnLeave

LONGEST_STREAM = 86_400.0
"""Seconds for which an answer is waited for if its request does not say: the market has its own limit."""


class RequestStream:
    """The answer to one request, piece by piece. Use it in `async with`, which ends the call when it is left.

    Iterating over it yields the pieces, as the transport makes them. It ends when the answer is whole, and raises a
    member of `CallFailed` if it does not become so. Then `result` is the whole result, as of `smart_request`.
    """

    def __init__(self, supervisor: ActorRef[SmartRequest], message: SmartRequest, channel: PieceChannel) -> None:
        self._supervisor, self._message, self._channel = supervisor, message, channel
        self._task: asyncio.Task[SmartResult] | None = None
        self._result: SmartResult | None = None
        self._is_closed = False

    @property
    def result(self) -> SmartResult:
        """The whole result; raises RuntimeError before the stream has ended well."""
        if self._result is None:
            raise RuntimeError("the stream has no result yet: iterate over it to its end")
        return self._result

    async def __aenter__(self) -> Self:
        if self._task is not None or self._is_closed:
            raise RuntimeError("a stream is entered once, for one call; make another stream for another call")
        channel = self._channel
        timeout = self._message.timeout + ANSWER_GRACE
        self._task = asyncio.create_task(self._supervisor.ask(self._message, timeout=timeout))
        self._task.add_done_callback(partial(_end, channel))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def commit(self) -> bool:
        """Say that you act on what came, such as by showing it, so that it is not made void any more.

        It is for `after_cut="restart_unseen"`. False if it has become void already: read on, to the `Restarted`.
        """
        return self._channel.commit()

    async def aclose(self) -> None:
        """Leave the call: it ends, and its provider is told at once, unless it is to finish. Safe to call twice."""
        self._is_closed = True
        self._channel.leave()
        task = self._task
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._task is None:
            raise RuntimeError("a stream of a request is used in `async with`")
        try:
            return await self._channel.get()
        except StopAsyncIteration:
            if self._is_closed:
                raise
            self._result = await self._task
            raise

    def __del__(self) -> None:
        # Dropped unclosed: the call must not hold its place, and cost, until its time is up.
        self._channel.leave()
        if self._task is not None and not self._task.done() and not self._task.get_loop().is_closed():
            self._task.cancel()

    def __repr__(self) -> str:
        state = "not begun" if self._task is None else "ended" if self._task.done() else "under way"
        return f"<RequestStream of {self._message.service!r}, {state}, {len(self._channel)} pieces wait>"


def _end(channel: PieceChannel, task: asyncio.Task[SmartResult]) -> None:
    channel.end()
    if not task.cancelled():
        task.exception()  # A consumer that has left does not ask for it.


@says_option_names
def smart_stream(
    supervisor: ActorRef[SmartRequest],
    *,
    service: str,
    input: Any,  # noqa: A002 - the seed's name.
    options: RequestOptions = DEFAULT_OPTIONS,
    budget: Amount | None = None,
    timeout: float | None = None,
    first: float | None = None,
    gap: float | None = None,
    patience: float | None = None,
    after_cut: AfterCut = "fail",
    on_leave: OnLeave | None = None,
    account: str | None = None,
    request_id: str | None = None,
    idempotency_key: str | None = None,
    repurchase: bool = False,
    priority: Priority | None = None,
) -> RequestStream:
    """Have `service` rendered as a stream, by a provider whose transport streams; use the answer in `async with`.

    A request and its options are those of `smart_request`. `timeout` is for the whole stream, in seconds; `first` is
    what each provider has until its first piece, and `gap` the longest time between two pieces, which counts only while
    they are read. A consumer that takes nothing for `patience` seconds has left. None is what the market says: the
    timeout of the listing until the first piece, and for the others 600, 30 and 60 s (`StreamConfig`).

    Before the first piece, the request goes to another provider as any does. If it breaks off afterwards, it ends with
    `StreamBroken`; with `after_cut="restart"` the consumer gets a `Restarted`, which makes all before it void, and the
    next provider begins anew, unless what came may have been acted on: a whole tool call, or a finish reason. With
    "restart_unseen" it does so until the consumer calls `commit`, before which it shows nothing of what comes.

    If the consumer leaves, the call ends. With `on_leave="finish"` it goes on to its end without one, within `timeout`;
    under a key, the answer can be had then by another request. None is what the market says: "cancel" by default.
    """
    if not isinstance(supervisor, ActorRef):
        raise TypeError(f"supervisor must be the ref of a Supervisor that was spawned, got {supervisor!r:.100}")
    channel = PieceChannel()
    message = options.request(
        service,
        input,
        budget=budget,
        timeout=LONGEST_STREAM if timeout is None else timeout,
        account=account,
        request_id=request_id or own_id(random.getrandbits(128)),
        idempotency_key=idempotency_key,
        repurchase=repurchase,
        stream=StreamTerms(
            sink=channel,
            gap=gap,
            patience=patience,
            first=first,
            timeout=timeout,
            on_leave=on_leave or options.on_leave,
        ),
        after_cut=after_cut,
        priority=priority,
    )
    return RequestStream(supervisor, message, channel)
