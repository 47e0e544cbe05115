"""Asks a model through a supervisor for an answer that comes piece by piece."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from actors.model_calls.answer import read_answer
from actors.model_calls.deltas import ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta, deltas_of
from actors.models.chat import ChatResult, chat_request, chat_result, service_of
from actors.supervisor.options import DEFAULT_OPTIONS, RequestOptions
from actors.supervisor.streaming import RequestStream, smart_stream
from actors.transports.model_stream import StreamPiece
from actors.transports.streaming import Restarted, WholeAnswer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from actors.model_calls.deltas import Delta
    from actors.money import Amount
    from actors.supervisor.messages import AfterCut, SmartRequest
    from actors.transports.streaming import OnLeave
    from runtime import ActorRef

ChatPiece: TypeAlias = TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta | Restarted
"""What a stream of a chat yields."""


class ChatStream:
    """The answer of a model, piece by piece. Use it in `async with`, which ends the call when it is left.

    Iterating over it yields what the model says as it comes (`TextDelta`, `ReasoningDelta`, `RefusalDelta`,
    `ToolCallDelta`), and `Restarted` if all before that is void. It ends when the answer is whole, and raises a member
    of `CallFailed` if it does not become so. `text` is what has come, and `result`, at the end, what `chat` returns.
    """

    def __init__(self, stream: RequestStream) -> None:
        self._stream = stream
        self._pending: deque[ChatPiece] = deque()
        self.text = ""

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Leave the call: it ends, and its provider is told at once, unless it is to finish. Safe to call twice."""
        await self._stream.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChatPiece:
        while not self._pending:
            self._pending.extend(_deltas_of(await anext(self._stream)))
        piece = self._pending.popleft()
        if isinstance(piece, TextDelta):
            self.text += piece.text
        elif isinstance(piece, Restarted):
            self.text = ""
        return piece

    @property
    def result(self) -> ChatResult:
        """The whole answer; raises RuntimeError before the stream has ended well."""
        result = self._stream.result
        return chat_result(read_answer("chat", result.output), result)

    def __repr__(self) -> str:
        return f"<ChatStream, {len(self.text)} characters came, {self._stream!r}>"


def _deltas_of(piece: object) -> Iterator[Delta | Restarted]:
    match piece:
        case StreamPiece(deltas=deltas):
            yield from deltas
        case Restarted():
            yield piece
        case WholeAnswer(output):
            yield from deltas_of(read_answer("chat", output))
        case _:
            pass


def chat_stream(
    supervisor: ActorRef[SmartRequest],
    *,
    messages: str | Sequence[dict[str, Any]],
    model: str | None = None,
    max_tokens: int | None = None,
    options: RequestOptions = DEFAULT_OPTIONS,
    budget: Amount | None = None,
    timeout: float | None = None,
    first: float | None = None,
    gap: float | None = None,
    patience: float | None = None,
    after_cut: AfterCut = "fail",
    on_leave: OnLeave | None = None,
    account: str | None = None,
    idempotency_key: str | None = None,
    repurchase: bool = False,
    **fields: Any,
) -> ChatStream:
    """Have a model answer `messages` piece by piece; the arguments are those of `chat` and `smart_stream`."""
    stream = smart_stream(
        supervisor,
        service=service_of(model),
        input=chat_request(messages, max_tokens, fields),
        options=options,
        budget=budget,
        timeout=timeout,
        first=first,
        gap=gap,
        patience=patience,
        after_cut=after_cut,
        on_leave=on_leave,
        account=account,
        idempotency_key=idempotency_key,
        repurchase=repurchase,
    )
    return ChatStream(stream)
