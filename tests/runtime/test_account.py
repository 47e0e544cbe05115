"""The account of the design, as a first user writes it."""

from __future__ import annotations

import asyncio

from runtime import Actor, ActorSystem, Message, Request, handles


class Deposit(Message):
    amount: int


class Balance(Request[int]):
    pass


class Account(Actor[Deposit | Balance]):
    def __init__(self) -> None:
        self.balance = 0

    @handles(Deposit)
    def deposit(self, message: Deposit) -> None:
        self.balance += message.amount

    @handles(Balance)
    async def report(self, message: Balance) -> int:
        return self.balance


async def test_an_account_answers_with_the_sum_of_its_deposits():
    async with ActorSystem("bank") as system:
        account = system.spawn(Account, name="alice")
        account.tell(Deposit(5))
        account.tell(Deposit(7))
        assert await account.ask(Balance(), timeout=1.0) == 12
    assert len(asyncio.all_tasks()) == 1
