"""Asking somebody for more money: one question about each account at a time, and none again after a no."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from actors.ledger.waiters import ReserveWaiter  # noqa: TC001 - msgspec resolves the annotations below.
from actors.money import to_micros

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from actors.ledger.page import Statement
    from actors.money import Amount, Micros

    OnExhausted: TypeAlias = Callable[[Statement, Micros], Awaitable[Amount | None]]
    """Answers, for an account that needs so much more than it has, with its new cap; or None to refuse."""

TIME_TO_END = 1.0
"""Seconds that a question has to end when the ledger does."""


class Question(msgspec.Struct):
    """Somebody is being asked; for whose sake, and the task that does it."""

    waiter: ReserveWaiter
    task: asyncio.Task[Amount | None]


class Questions:
    """The questions of one ledger.

    Each is put by awaiting `ask`, for at most `timeout` seconds; `answered` gets the account, the cap or None, and for
    whose sake it was asked. `failed` gets what `ask` raised, which counts as a no to those who wait, and to no other.
    """

    def __init__(
        self,
        ask: OnExhausted | None,
        *,
        timeout: float,
        answered: Callable[[str, Micros | None, ReserveWaiter], None],
        failed: Callable[[str, BaseException], None],
    ) -> None:
        self._ask = ask
        self._timeout = timeout
        self._tell = answered
        self._failed = failed
        self._under_way: dict[str, Question] = {}
        self._said_no: set[str] = set()

    def is_pending(self, account: str) -> bool:
        """Tell whether somebody is being asked for an account."""
        return account in self._under_way

    def may_answer(self, waiter: ReserveWaiter, statement: Statement, needed: Micros) -> bool:
        """Tell whether there is an answer to wait for, which is asked for here unless somebody does already."""
        account, ask = statement.name, self._ask
        if ask is None or account in self._said_no or account in waiter.asked:
            return False
        if account not in self._under_way:
            task = asyncio.create_task(self._put(ask, statement, needed), name=f"more for {account}")
            self._under_way[account] = Question(waiter, task)
            task.add_done_callback(partial(self._answered, account))
        return True

    def forget_no(self, account: str) -> None:
        """Let somebody be asked again: the cap has changed."""
        self._said_no.discard(account)

    def withdraw(self, account: str) -> None:
        """Ask no more for an account that was closed."""
        self._said_no.discard(account)
        question = self._under_way.pop(account, None)
        if question is not None:
            question.task.cancel()

    async def stop(self) -> None:
        """Withdraw everything, and wait until whoever was asked has taken note, for a moment."""
        tasks = [question.task for question in self._under_way.values()]
        self._under_way.clear()  # What they answer now is of no use.
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=TIME_TO_END)

    async def _put(self, ask: OnExhausted, statement: Statement, needed: Micros) -> Amount | None:
        async with asyncio.timeout(self._timeout):
            return await ask(statement, needed)

    def _answered(self, account: str, task: asyncio.Task[Amount | None]) -> None:
        question = self._under_way.get(account)
        if question is None or question.task is not task:
            if not task.cancelled():
                task.exception()  # It was withdrawn: what it raised is nobody's business any more.
            return
        del self._under_way[account]
        self._tell(account, self._cap_of(account, task), question.waiter)

    def _cap_of(self, account: str, task: asyncio.Task[Amount | None]) -> Micros | None:
        try:
            answer = task.result()
            if answer is not None:
                return to_micros(answer)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it harms those who wait, and no other.
            self._failed(account, error)
            return None
        self._said_no.add(account)
        return None

    def __len__(self) -> int:
        return len(self._under_way)

    def __repr__(self) -> str:
        return f"<Questions {len(self)} under way, {len(self._said_no)} denied>"
