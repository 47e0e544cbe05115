"""Actors that the tests place on nodes, which have to import them."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from runtime import Actor, ActorRef, Message, Refusal, Request, Terminated, handles, pool, router


class TooMuch(Refusal):
    def __init__(self, wanted: int, left: int) -> None:
        super().__init__(f"{wanted} wanted, {left} left")
        self.wanted = wanted
        self.left = left


class Deposit(Message, frozen=True):
    amount: int


class Total(Request[int], frozen=True):
    pass


class Withdraw(Request[int], frozen=True):
    amount: int
    refusals: ClassVar[tuple[type[Refusal], ...]] = (TooMuch,)


class GetNode(Request[str], frozen=True):
    """Asks for the name of the node on which the actor lives."""


class Break(Request[int], frozen=True):
    pass


class Slow(Request[str], frozen=True):
    seconds: float


class Odd(Message, frozen=True):
    """Cannot be decoded: its own check raises what is no error of decoding."""

    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise KeyError(self.number)


class Garbled(Request[int], frozen=True):
    """Refused with a text that cannot be encoded."""


class Introduce(Message, frozen=True):
    other: ActorRef[Any]


class Relay(Request[int], frozen=True):
    """Asks another actor for its total."""

    other: ActorRef[Any]


class NotHandled(Request[int], frozen=True):
    pass


class Cancelled(Request[int], frozen=True):
    pass


class OpenPool(Request[ActorRef[Any]], frozen=True):
    size: int


class OpenRouter(Request[ActorRef[Any]], frozen=True):
    routees: list[ActorRef[Any]]


class Host(Actor[Any]):
    """Opens pools and routers on its node."""

    @handles(OpenPool)
    def open_pool(self, message: OpenPool) -> ActorRef[Any]:
        return pool(self.context, Account, size=message.size)

    @handles(OpenRouter)
    def open_router(self, message: OpenRouter) -> ActorRef[Any]:
        return router(self.context, message.routees)


class Borrow(Request[int], frozen=True):
    pass


class AllBack(Message, frozen=True):
    """Says that all that was lent is back."""


class Lender(Actor[Any]):
    """Lends something with each answer, and counts what is out."""

    def __init__(self) -> None:
        self.lent = 0

    @handles(Borrow)
    def lend(self, message: Borrow) -> int:
        self.lent += 1
        return self.lent

    @handles(AllBack)
    def take_back(self, message: AllBack) -> None:
        self.lent = 0

    @handles(Total)
    def tell_lent(self, message: Total) -> int:
        return self.lent

    def unclaimed(self, request: Request[Any], answer: Any) -> None:
        self.lent -= 1


class Account(Actor[Any]):
    """Counts, refuses, crashes and is slow."""

    def __init__(self, total: int = 0) -> None:
        self.total = total
        self.cancelled = 0

    @handles(Deposit)
    def deposit(self, message: Deposit) -> None:
        self.total += message.amount

    @handles(Total)
    def tell_total(self, message: Total) -> int:
        return self.total

    @handles(Withdraw)
    def withdraw(self, message: Withdraw) -> int:
        if message.amount > self.total:
            raise TooMuch(message.amount, self.total)
        self.total -= message.amount
        return self.total

    @handles(Odd)
    def take_odd(self, message: Odd) -> None:
        self.total += message.number

    @handles(Garbled)
    def refuse(self, message: Garbled) -> int:
        raise Refusal("half a character: \ud83d")

    @handles(GetNode)
    def tell_node(self, _: GetNode) -> str:
        return self.context.ref.path.partition("/")[0]

    @handles(Break)
    def break_down(self, message: Break) -> int:
        raise KeyError("broken")

    @handles(Slow, concurrent=100)
    async def be_slow(self, message: Slow) -> str:
        try:
            await asyncio.sleep(message.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "done"

    @handles(Cancelled)
    def tell_cancelled(self, message: Cancelled) -> int:
        return self.cancelled

    @handles(Relay, concurrent=10)
    async def relay(self, message: Relay) -> int:
        return await message.other.ask(Total(), timeout=5)


class Watcher(Actor[Any]):
    """Watches whom it is introduced to."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    @handles(Introduce)
    def watch(self, message: Introduce) -> None:
        self.context.watch(message.other)

    @handles(Terminated)
    def take_note(self, message: Terminated) -> None:
        self.ends.append(message.exit.reason.value)

    @handles(Total)
    def tell_total(self, message: Total) -> int:
        return len(self.ends)


class Listed(Actor[Any]):
    """Keeps what it is told, in order."""

    def __init__(self) -> None:
        self.amounts: list[int] = []

    @handles(Deposit)
    def take(self, message: Deposit) -> None:
        self.amounts.append(message.amount)

    @handles(Total)
    def tell_total(self, message: Total) -> int:
        """Return how many came, or -1 if one came twice or out of order."""
        return len(self.amounts) if self.amounts == sorted(set(self.amounts)) else -1


class Numbered(Request[int], frozen=True):
    sender: str
    number: int


class Told(Message, frozen=True):
    sender: str
    number: int


SEEN: dict[str, list[tuple[str, int]]] = {}
"""What reached each life of a receiver, by its name: the tests look at it from outside."""


class Receiver(Actor[Any]):
    """Notes what reaches it, and answers at once, later, or never."""

    def __init__(self, life: str) -> None:
        self.seen = SEEN.setdefault(life, [])

    @handles(Told)
    def take(self, message: Told) -> None:
        self.seen.append((message.sender, message.number))

    @handles(Numbered)
    def answer(self, message: Numbered) -> asyncio.Future[int]:
        self.seen.append((message.sender, message.number))
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[int] = loop.create_future()
        seconds = self.context.random.choice((0.0, 0.01, 0.3))
        loop.call_later(seconds, lambda: answer.done() or answer.set_result(message.number))
        return answer
