"""A ledger in memory for tests to look into, with everything that was published."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from actors.ledger.ledger import Ledger
from actors.ledger.messages import BookCall, GetStatement, Reservation, Reserve
from actors.money import Micros
from runtime import ActorFailed, ActorSystem, Event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runtime import ActorRef

DOLLAR = Micros(1_000_000)


class Money:
    """A running ledger, its instances, and everything that was published."""

    def __init__(self, system: ActorSystem, **options: Any) -> None:
        self.instances: list[Ledger] = []
        self.events: list[Event] = []
        self.system = system

        def make() -> Ledger:
            self.instances.append(Ledger(**{"accounts": {"run": 10}, **options}))
            return self.instances[-1]

        self.ref: ActorRef[Any] = system.spawn(make, name="ledger")
        system.events.subscribe(Event, self.events.append)

    async def reserve(self, key: str, amount: int = 4 * DOLLAR, *, timeout: float = 1e6, **more: Any) -> Reservation:  # noqa: ASYNC109 - a deadline.
        asked = Reserve(**{"key": key, "provider": "alder", "amount": Micros(amount), "accounts": ("run",), **more})
        return await self.ref.ask(asked, timeout=timeout)

    def start(self, key: str, *args: Any, **more: Any) -> asyncio.Task[Reservation]:
        return asyncio.create_task(self.reserve(key, *args, **more), name=key)

    def tell(self, reservation: Reservation, charged: Any = "yes", cost: int | None = None) -> None:
        self.ref.tell(BookCall(reservation, charged, None if cost is None else Micros(cost)))

    async def figures(self, account: str | None = "run") -> tuple[int, int, int]:
        statement = await self.ref.ask(GetStatement(account), timeout=1)
        return statement.reserved, statement.held, statement.settled

    def heard(self, *kinds: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]

    def assert_idle(self) -> None:
        actor = self.instances[-1]
        assert list(actor.broken_invariants()) == []
        assert len(actor.approvals) == 0


@asynccontextmanager
async def money(**options: Any) -> AsyncIterator[Money]:
    async with ActorSystem("bank") as system:
        kept = Money(system, **options)
        yield kept
        await settle()
        kept.assert_idle()
        assert kept.heard(ActorFailed) == []


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)
