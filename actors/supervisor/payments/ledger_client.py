"""How a supervisor reaches its ledger: questions, and messages that are not lost if the ledger is too busy."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any, TypeAlias

from actors.errors.families import LedgerDown
from runtime import MailboxFull, RuntimeFault

if TYPE_CHECKING:
    from actors.ledger.messages import BookCall, ForgetAnswer, GiveUpAccount, KeepFailure, MarkUnderWay, NoteHandle
    from actors.supervisor.services import Service
    from runtime import ActorRef, Context, Request

LedgerRef: TypeAlias = "ActorRef[Any] | Service"

LEDGER_CALL_TIMEOUT = 5.0
"""Seconds that the ledger has to open an account, or to tell its figures, for a request."""
MAX_WAIT = 86_400.0
"""Seconds that a question passed on to the ledger may wait, such as for the last call that draws on an account."""


class LedgerClient:
    """One supervisor's connection to its ledger."""

    def __init__(self, ledger: LedgerRef, context: Context) -> None:
        self.ledger = ledger
        self._context = context
        self.late: set[asyncio.Future[None]] = set()
        """Messages that wait for room in the ledger's mailbox."""

    async def ask(self, request: Request[Any], *, timeout: float = MAX_WAIT) -> Any:  # noqa: ASYNC109 - see `ask`.
        """Pass a question on, within its asker's deadline; raises `LedgerDown` if the ledger cannot be reached."""
        try:
            return await self.ledger.ask(request, timeout=timeout)
        except RuntimeFault as fault:
            raise LedgerDown(str(fault)) from fault

    def tell(self, message: BookCall | ForgetAnswer | GiveUpAccount | KeepFailure | MarkUnderWay | NoteHandle) -> None:
        """Tell the ledger what it has to know, as soon as it has room."""
        try:
            self.ledger.tell(message)
        except MailboxFull:
            # The message must not be lost, nor travel with the deadline of the request: hence a context of its own.
            sending = asyncio.create_task(self.ledger.send(message), context=contextvars.Context())
            self.late.add(sending)
            sending.add_done_callback(self._sent)

    async def until_told(self, *, until: float) -> None:
        """Let the ledger take late messages first, until loop time `until`: a question must not overtake them."""
        if self.late:
            await asyncio.wait(self.late, timeout=max(until - self._context.now(), 0.0))

    def _sent(self, sending: asyncio.Future[None]) -> None:
        self.late.discard(sending)
        if not sending.cancelled() and (error := sending.exception()) is not None:
            self._context.log.warning("the ledger could not be told any more: {}", error)

    async def close(self) -> None:
        """Drop the messages that still wait: a ledger holds that money when its holder ends."""
        for sending in tuple(self.late):
            sending.cancel()
        await asyncio.gather(*self.late, return_exceptions=True)
