"""An actor: private state, one message at a time, and an answer whose type the checker knows."""

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


async def main() -> None:
    async with ActorSystem("bank") as system:
        alice = system.spawn(Account, name="alice")
        alice.tell(Deposit(5))
        alice.tell(Deposit(7))
        print(f"alice has {await alice.ask(Balance(), timeout=1.0)}")


asyncio.run(main())
