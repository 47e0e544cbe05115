"""Reserves and settles until it is killed, and says each time it was answered; see test_commits.py."""

from __future__ import annotations

import asyncio
import sys

from actors.errors.families import CallFailed
from actors.ledger.ledger import Ledger
from actors.ledger.messages import BookCall, Reserve
from actors.money import Micros
from runtime import ActorSystem


async def main(path: str) -> None:
    async with ActorSystem("bank") as system:
        ledger = system.spawn(lambda: Ledger(accounts={"run": None}, journal=path))

        async def worker(name: int) -> None:
            number = 0
            while True:
                number += 1
                wish = Reserve(key=f"{name}/{number}", provider="alder", amount=Micros(10), accounts=("run",))
                try:
                    reservation = await ledger.ask(wish, timeout=60)
                except CallFailed:
                    return
                sys.stdout.write(f"answered {reservation.number}\n")
                sys.stdout.flush()
                if number % 3:
                    ledger.tell(BookCall(reservation))

        await asyncio.gather(*(worker(number) for number in range(10)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
