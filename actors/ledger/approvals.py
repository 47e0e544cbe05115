"""Asking the owner of the money for a higher cap: once at a time for each account."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from actors.ledger.waiters import ReserveWaiter  # noqa: TC001 - msgspec resolves the annotations below.
from actors.money import OptionalAmountField, take_amount

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from actors.ledger.statement import Statement
    from actors.money import Amount, Micros

    Answer: TypeAlias = "Amount | CapAnswer | None"
    OnExhausted: TypeAlias = Callable[[Statement, Micros], Awaitable[Answer]]
    """Takes an account and how much more it needs than it has; answers with its new cap, or None to refuse."""
    OnAnswer: TypeAlias = "Callable[[str, CapAnswer | None, ReserveWaiter], None]"
    """Takes the account, the answer or None if there is none, and the waiter on whose behalf it was asked for."""

TIME_TO_END = 1.0
"""Seconds that a question has to end when the ledger does."""


class CapAnswer(msgspec.Struct, frozen=True):
    """An answer of `on_exhausted`: the new cap, or None to refuse; for this period of the account, or `for_good`."""

    cap: OptionalAmountField
    for_good: bool = False

    def __post_init__(self) -> None:
        if self.cap is not None:
            take_amount(self, "cap")


class PendingApproval(msgspec.Struct):
    """A question that is not answered yet: the waiter on whose behalf it is asked, and the task that asks it."""

    waiter: ReserveWaiter
    task: asyncio.Task[Any]


class Approvals:
    """The questions of one ledger to the owner of its money.

    Each awaits `on_exhausted`, for at most `timeout` seconds. `on_failure` gets the account and what that raised, which
    refuses the requests that wait for this answer, and no later one.
    """

    def __init__(
        self, on_exhausted: OnExhausted | None, *, timeout: float, on_failure: Callable[[str, BaseException], None]
    ) -> None:
        self._on_exhausted = on_exhausted
        self._timeout = timeout
        self._on_failure = on_failure
        self._pending: dict[str, PendingApproval] = {}

    def is_pending(self, account: str) -> bool:
        """Tell whether a question about an account is waiting for its answer."""
        return account in self._pending

    def may_ask(self, waiter: ReserveWaiter, account: str) -> bool:
        """Tell whether there is an owner to ask about an account who has not answered on behalf of this waiter yet."""
        return self._on_exhausted is not None and account not in waiter.asked

    def ask(self, waiter: ReserveWaiter, statement: Statement, needed: Micros, on_answer: OnAnswer) -> None:
        """Ask for more money, unless that is being done."""
        account = statement.name
        if self._on_exhausted is not None and account not in self._pending:
            task = asyncio.create_task(self._ask(self._on_exhausted, statement, needed), name=f"more for {account}")
            self._pending[account] = PendingApproval(waiter, task)
            task.add_done_callback(partial(self._answered, account, on_answer))

    def withdraw(self, account: str) -> None:
        """Cancel the question about an account."""
        pending = self._pending.pop(account, None)
        if pending is not None:
            pending.task.cancel()

    async def stop(self) -> None:
        """Cancel every question, and wait for a moment until `on_exhausted` has taken note."""
        tasks = [pending.task for pending in self._pending.values()]
        self._pending.clear()  # An answer that comes now is of no use.
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=TIME_TO_END)

    async def _ask(self, on_exhausted: OnExhausted, statement: Statement, needed: Micros) -> Answer:
        async with asyncio.timeout(self._timeout):
            return await on_exhausted(statement, needed)

    def _answered(self, account: str, on_answer: OnAnswer, task: asyncio.Task[Answer]) -> None:
        pending = self._pending.get(account)
        if pending is None or pending.task is not task:
            if not task.cancelled():
                task.exception()  # The question was withdrawn, so what it raised is of no interest any more.
            return
        del self._pending[account]
        on_answer(account, self._answer_of(account, task), pending.waiter)

    def _answer_of(self, account: str, task: asyncio.Task[Answer]) -> CapAnswer | None:
        try:
            answer = task.result()
            return answer if isinstance(answer, CapAnswer) else CapAnswer(answer)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it harms these waiters alone.
            self._on_failure(account, error)
            return None

    def __len__(self) -> int:
        return len(self._pending)

    def __repr__(self) -> str:
        return f"<Approvals {len(self)} pending>"
