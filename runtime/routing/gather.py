"""Ask several actors, and take the first answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from runtime.cell.answers import hand_back
from runtime.cell.state import CellState
from runtime.routing.router import M, Router

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.messages import Asks, R
    from runtime.ref import ActorRef, Recipient


async def ask_first(refs: Sequence[ActorRef[M]], message: Asks[M, R], *, timeout: float) -> R:  # noqa: ASYNC109 - see `ask`.
    """Ask all, return the first answer, and cancel the other requests: scatter-gather.

    What the others have answered in the same moment goes back to them, as an answer that came too late
    (`Actor.unclaimed`). Raises the last error if no actor answers, and `ValueError` if `refs` is empty.
    """
    if not refs:
        raise ValueError("ask_first needs at least one actor to ask; refs is empty")
    gathering = Gathering(message, len(refs))
    tasks = [asyncio.create_task(gathering.ask(ref.recipient, timeout)) for ref in refs]
    try:
        try:
            answer: R = await gathering.first
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    except asyncio.CancelledError:
        gathering.take_back()
        raise
    return answer


class Gathering:
    """One request in flight to several actors, of which the first answer is wanted."""

    def __init__(self, message: Any, asked: int) -> None:
        self.message = message
        self.first: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._open = asked
        self._winner: Recipient | None = None

    async def ask(self, recipient: Recipient, timeout: float) -> None:  # noqa: ASYNC109 - a deadline, not a scope.
        """Ask one of them."""
        try:
            if isinstance(recipient, Router):
                recipient = recipient.destination(self.message)
            answer = await recipient.ask(self.message, timeout)
        except Exception as error:  # noqa: BLE001 - raised at the asker, if no actor answers.
            self._open -= 1
            if not self._open and not self.first.done():
                self.first.set_exception(error)
        else:
            if self.first.done():
                give_back(recipient, self.message, answer)
            else:
                self._winner = recipient
                self.first.set_result(answer)

    def take_back(self) -> None:
        """Give the first answer back too: the asker was cancelled before it had it."""
        if self._winner is not None:
            give_back(self._winner, self.message, self.first.result())
        elif self.first.done() and not self.first.cancelled():
            self.first.exception()  # It has no one left to concern; asyncio would log it otherwise.


def give_back(recipient: Recipient, request: Any, answer: Any) -> None:
    """Give an answer back to the actor it came from."""
    if isinstance(recipient, CellState):
        hand_back(recipient, request, answer)
