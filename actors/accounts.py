"""The accounts of one supervisor: opened by name, drawn on by requests, closed once the last of those has ended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from actors.account import Account, Purse
from actors.errors import Permanent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.money import Micros


class Accounts:
    """The open accounts by name."""

    def __init__(self) -> None:
        self._open: dict[str, Purse] = {}
        self._closing: dict[Purse, asyncio.Future[Account]] = {}
        self._named = 0

    def __getitem__(self, name: str) -> Account:
        return self._open[name].account

    def __len__(self) -> int:
        return len(self._open)

    def open(self, name: str | None, *, cap: Micros | None) -> str:
        """Open an account and return its name, which is made up where none is given; one in use is refused."""
        if name is None:
            self._named += 1
            name = f"account-{self._named}"
            return self.open(None if name in self._open else name, cap=cap)
        if name in self._open:
            raise Permanent(f"account {name!r} is open already; close it first, or take another name")
        self._open[name] = Purse(Account(name=name, cap=cap))
        return name

    def close(self, name: str) -> Account | asyncio.Future[Account]:
        """Let nobody draw on an account any more; return what became of its money, once that is known."""
        purse = self._open.pop(name, None)
        if purse is None:
            raise Permanent(f"there is no open account {name!r}")
        if purse.requests == 0:
            return purse.account
        closing = self._closing[purse] = asyncio.get_running_loop().create_future()
        return closing

    def draw_on(self, name: str) -> Purse:
        """Return the purse of an open account for one more request, which has to `leave` it at its end."""
        purse = self._open.get(name)
        if purse is None:
            raise Permanent(f"there is no open account {name!r}; ask OpenAccount first")
        purse.requests += 1
        return purse

    def leave(self, purse: Purse) -> None:
        """Count one request less; the last one answers whoever closed the account."""
        purse.requests -= 1
        closing = self._closing.pop(purse, None) if purse.requests == 0 else None
        if closing is not None and not closing.done():
            closing.set_result(purse.account)

    def broken_invariants(self) -> Iterator[str]:
        """Name the accounts that somebody draws on, or whose money is promised, although no request is under way."""
        for purse in (*self._open.values(), *self._closing):
            yield from purse.broken_invariants()
        for purse in self._closing:
            yield f"whoever closed account {purse.account.name!r} was not answered"

    def __repr__(self) -> str:
        return f"<Accounts {len(self._open)} open, {len(self._closing)} closing>"
