"""Ask several actors, and take the first answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from runtime.cell.answers import hand_back
from runtime.cell.far_target import FarTarget
from runtime.cell.state import CellState
from runtime.routing.router import M, Router

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
        self._give_back: Callable[[], None] | None = None
        """Gives the first answer back to the actor that it came from."""

    async def ask(self, recipient: Recipient, timeout: float) -> None:  # noqa: ASYNC109 - a deadline, not a scope.
        """Ask one of them."""
        try:
            if isinstance(recipient, Router):
                recipient = recipient.destination(self.message)
            answer, give_back = await ask_to_return(recipient, self.message, timeout)
        except Exception as error:  # noqa: BLE001 - raised at the asker, if no actor answers.
            self._open -= 1
            if not self._open and not self.first.done():
                self.first.set_exception(error)
        else:
            if self.first.done():
                give_back()
            else:
                self._give_back = give_back
                self.first.set_result(answer)

    def take_back(self) -> None:
        """Give the first answer back too: the asker was cancelled before it had it."""
        if self._give_back is not None:
            self._give_back()
        elif self.first.done() and not self.first.cancelled():
            self.first.exception()  # It has no one left to concern; asyncio would log it otherwise.


async def ask_to_return(recipient: Recipient, request: Any, timeout: float) -> tuple[Any, Callable[[], None]]:  # noqa: ASYNC109 - see `ask`.
    """Ask an actor, and return its answer, and what gives that back to the actor."""
    if isinstance(recipient, FarTarget):
        return await recipient.ask_to_return(request, timeout)
    answer = await recipient.ask(request, timeout)
    return answer, lambda: hand_back(recipient, request, answer) if isinstance(recipient, CellState) else None
