"""What becomes of what a handler returns: an answer now, a future of one, or nothing; and of answers nothing takes."""

from __future__ import annotations

import asyncio
from inspect import isawaitable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from runtime.actor import Actor
from runtime.cell.failures import as_failure, crashed, wrong_answer
from runtime.cell.inbox import accept, dead_letter_instead
from runtime.cell.phases import ALIVE
from runtime.envelope import RUNNING, Ask, Stashed, Unclaimed
from runtime.errors import Refusal
from runtime.events import ActorFailed, CancellationIgnored
from runtime.messages import Request

if TYPE_CHECKING:
    from runtime.cell.state import CellState


def take_answer(cell: CellState, ask: Ask, answer: Any) -> None:
    """Give the asker what its handler returned, now or later; hand it back if the asker has given up."""
    if isinstance(answer, asyncio.Future):
        answer_later(cell, ask, answer)  # pyright: ignore[reportUnknownArgumentType] - of the request's type.
    elif isinstance(answer, CoroutineType):
        raise wrong_answer(cell.path, ask.message, answer)
    elif isinstance(answer, Stashed):
        ask.put_back()
    else:
        ask.answerer = cell
        if ask.answer(answer):
            return
        if ask.execution is not None:
            cell.engine.events.publish(CancellationIgnored(cell.ref, ask.message))
        hand_back(cell, ask.message, answer)


def answer_later(cell: CellState, ask: Ask, future: asyncio.Future[Any]) -> None:
    """Answer when the future is done; the actor goes on, and an asker that gives up cancels the future."""
    if cell.later is None:
        cell.later = {}
    later = cell.later
    later[future] = ask
    if ask.progress is RUNNING:
        ask.execution = future

    def settle(done: asyncio.Future[Any]) -> None:
        later.pop(done, None)
        if done.cancelled():
            ask.fail(crashed(cell.path, ask.message, None))
        elif (error := done.exception()) is None:
            ask.answerer = cell
            if not ask.answer(done.result()):
                hand_back(cell, ask.message, done.result())
        elif isinstance(error, Refusal):
            ask.fail(error)
        else:
            if ask.progress is not RUNNING:
                # No asker waits for it, so that an event has to tell.
                cell.engine.events.publish(ActorFailed(cell.ref, as_failure(error), ask.message))
            ask.fail(crashed(cell.path, ask.message, error))

    future.add_done_callback(settle, context=cell.engine.context)
    if ask.progress is not RUNNING or cell.phase is not ALIVE:
        future.cancel()  # No asker waits for it, or it would be answered by an instance that is no more.


def take_outcome(cell: CellState, message: Any, answer: Any) -> None:
    """Take what the handler of a message that was told returned: only a request has an answer, which nothing asked."""
    if answer is None:
        return
    if not isinstance(message, Request) or isawaitable(answer) != asyncio.isfuture(answer):
        raise wrong_answer(cell.path, message, answer)
    if not asyncio.isfuture(answer):
        hand_back(cell, message, answer)
        return

    if cell.later is None:
        cell.later = {}
    later = cell.later
    later[answer] = message

    def settle(done: asyncio.Future[Any]) -> None:
        later.pop(done, None)
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            hand_back(cell, message, done.result())
        elif not isinstance(error, Refusal):
            cell.engine.events.publish(ActorFailed(cell.ref, as_failure(error), message))

    answer.add_done_callback(settle, context=cell.engine.context)
    if cell.phase is not ALIVE:
        answer.cancel()  # The end of its instance, which cancels what is under way, has begun already.


def hand_back(cell: CellState, request: Any, answer: Any) -> None:
    """Give the actor back an answer that no asker takes, before its other mail; see `Actor.unclaimed`."""
    if type(cell.actor).unclaimed is not Actor.unclaimed:
        accept(cell, Unclaimed(request, answer), needs_room=False, in_front=True, otherwise=dead_letter_instead)
