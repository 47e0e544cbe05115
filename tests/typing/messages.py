"""A wrong message, a wrong answer or a wrong handler is an error before anything runs, for both checkers."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, assert_type

from runtime import (
    Actor,
    ActorRef,
    ActorSystem,
    Exit,
    Key,
    Message,
    Request,
    Terminated,
    ask_first,
    feed,
    handles,
    pool,
    run_in_process,
    run_in_thread,
    through,
)
from runtime.routing import router

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Deposit(Message):
    amount: int


class Balance(Request[int]):
    pass


class History(Request[list[str]]):
    limit: int = 10


class Stranger(Message):
    pass


class Secret(Request[bytes]):
    pass


class Account(Actor[Deposit | Balance | History]):
    @handles(Deposit)
    def deposit(self, message: Deposit) -> None: ...

    @handles(Balance)
    async def report(self, message: Balance) -> int:
        return 0

    @handles(History)
    def history(self, message: History) -> list[str]:
        return []


class Untyped(Actor):
    @handles(Balance)
    def report(self, message: Balance) -> int:
        return 0


# Messages are values, checked when they are made.
Deposit(5)
Deposit(amount=5)
Deposit("five")  # error: pyright, mypy
Deposit()  # error: pyright, mypy
Deposit(5).amount = 6  # error: pyright, mypy


# What a ref takes and answers.
async def use(system: ActorSystem) -> None:
    account = system.spawn(Account)
    assert_type(account, ActorRef[Deposit | Balance | History])
    assert_type(await account.ask(Balance(), timeout=1.0), int)
    assert_type(await account.ask(History(limit=3), timeout=1.0), list[str])
    assert_type(await account.terminated(), Exit)
    account.tell(Deposit(5))
    await account.send(Deposit(5), timeout=1.0)
    await account.send(Deposit(5))

    account.tell(Stranger())  # error: pyright, mypy
    await account.send(Stranger())  # error: pyright, mypy
    await account.ask(Secret(), timeout=1.0)  # error: pyright, mypy
    await account.ask(Deposit(5), timeout=1.0)  # error: pyright, mypy
    await account.ask(Balance())  # error: pyright, mypy
    account.tell("deposit")  # error: pyright, mypy
    _text: str = await account.ask(Balance(), timeout=1.0)  # error: pyright, mypy

    # A ref that takes more may stand where one that takes less is wanted, and not the other way round.
    depositor: ActorRef[Deposit] = account
    depositor.tell(Deposit(5))
    _wider: ActorRef[Deposit | Balance | History | Stranger] = account  # error: pyright, mypy

    opened: list[Account] = []
    assert_type(system.spawn(lambda: opened[0]), ActorRef[Deposit | Balance | History])
    system.spawn(Account, name="alice", stop_timeout=1.0)
    system.spawn(Account())  # error: pyright, mypy
    system.spawn(Deposit)  # error: pyright, mypy

    # An actor that declares no messages takes any.
    untyped: ActorRef[Any] = system.spawn(Untyped)
    untyped.tell(Stranger())
    assert_type(await untyped.ask(Balance(), timeout=1.0), int)


# What stands for several actors takes and answers what they do.
async def use_many(system: ActorSystem, deposits: AsyncIterator[Deposit], limits: AsyncIterator[int]) -> None:
    workers = pool(system, Account, size=2)
    assert_type(workers, ActorRef[Deposit | Balance | History])
    assert_type(await router(system, [workers, workers]).ask(Balance(), timeout=1.0), int)
    assert_type(await ask_first([workers], History(), timeout=1.0), list[str])
    await ask_first([workers], Secret(), timeout=1.0)  # error: pyright, mypy
    pool(system, Deposit, size=2)  # error: pyright, mypy

    depositors = Key[Deposit]("depositors")
    system.registry.register(depositors, workers)
    assert_type(system.registry.find(depositors), tuple[ActorRef[Deposit], ...])
    system.registry.register(Key[Stranger]("strangers"), workers)  # error: pyright, mypy

    assert_type(await feed(workers, deposits), int)
    async with through(workers, limits, History, timeout=1.0).stream() as answers:
        async for answer in answers:
            assert_type(answer, list[str])

    assert_type(await run_in_thread(round, 1.5), int)
    assert_type(await run_in_process(divmod, 7, 2), tuple[int, int])
    assert_type(system.from_thread(workers.ask, Balance(), timeout=1.0), Future[int])
    assert_type(system.from_thread(workers.tell, Deposit(5)), Future[None])
    await run_in_thread(round, digits="two")  # error: pyright, mypy


# What handlers take and answer.
class Rightly(Actor[Balance | Deposit | Terminated]):
    @handles(Balance)
    def later(self, message: Balance) -> asyncio.Future[int]:
        return asyncio.get_running_loop().create_future()

    @handles(Deposit, concurrent=4)
    async def deposit(self, message: Deposit) -> None: ...

    @handles(Terminated)
    def terminated(self, message: Terminated) -> None:
        assert_type(message.exit, Exit)


class Either(Actor[Balance]):
    @handles(Balance)
    def now_or_later(self, message: Balance) -> int | asyncio.Future[int]:
        return 0


class Wrongly(Actor[Any]):
    # mypy reports the decorator, and then a `self` of which it knows nothing any more.
    @handles(Balance)  # error: pyright, mypy
    def wrong_answer(self, message: Balance) -> str:  # error: mypy
        return ""

    @handles(Balance)  # error: pyright, mypy
    async def wrong_answer_of_a_coroutine(self, message: Balance) -> str:  # error: mypy
        return ""

    @handles(Balance)  # error: pyright, mypy
    def wrong_future(self, message: Balance) -> asyncio.Future[str]:  # error: mypy
        return asyncio.get_running_loop().create_future()

    @handles(Deposit)  # error: pyright, mypy
    def wrong_message(self, message: Stranger) -> None: ...  # error: mypy

    @handles(Balance)  # error: pyright, mypy
    def wrong_request(self, message: History) -> int:  # error: mypy
        return 0

    @handles(Deposit)  # error: pyright, mypy
    def answers_a_message(self, message: Deposit) -> int:  # error: mypy
        return 0

    @handles(Deposit, concurrent="two")  # error: pyright, mypy
    async def wrong_number(self, message: Deposit) -> None: ...

    @handles(Balance)  # error: pyright, mypy
    def no_message(self) -> int:  # error: mypy
        return 0
