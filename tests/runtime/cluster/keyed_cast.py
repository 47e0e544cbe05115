"""Keyed actors that the tests place on nodes, which have to import them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from runtime import Request, handles
from runtime.persistence import EventSourced, qualified
from tests.runtime.cluster.cast import Total


class Saved(msgspec.Struct, frozen=True, tag=qualified("keyed tests")):
    amount: int
    note: str = ""


class Save(Request[int], frozen=True):
    """Answered with the balance."""

    amount: int
    note: str = ""


class SaveSlowly(Request[int], frozen=True):
    """Saves after some seconds."""

    amount: int
    seconds: float


class GetBalance(Request[int], frozen=True):
    pass


class GetNotes(Request[list[str]], frozen=True):
    pass


class Savings(msgspec.Struct, frozen=True):
    balance: int = 0
    notes: tuple[str, ...] = ()


class SavingsAccount(EventSourced[Save | SaveSlowly | GetBalance | GetNotes | Total, Saved, Savings]):
    def initial(self) -> Savings:
        return Savings()

    def evolve(self, state: Savings, event: Saved) -> Savings:
        if state.balance + event.amount < 0:
            raise ValueError("more than there is")
        notes = (*state.notes, event.note) if event.note else state.notes
        return Savings(state.balance + event.amount, notes)

    @handles(Save)
    async def save(self, command: Save) -> int:
        return (await self.record(Saved(command.amount, command.note))).balance

    @handles(SaveSlowly, concurrent=10)
    async def save_slowly(self, command: SaveSlowly) -> int:
        await asyncio.sleep(command.seconds)
        return (await self.record(Saved(command.amount))).balance

    @handles(GetBalance)
    def tell_balance(self, _: GetBalance) -> int:
        return self.state.balance

    @handles(Total)
    def tell_total(self, _: Total) -> int:
        return self.state.balance

    @handles(GetNotes)
    def tell_notes(self, _: GetNotes) -> list[str]:
        return list(self.state.notes)


def broken(key: str, _: Any) -> SavingsAccount:
    """Make no account."""
    raise ValueError(f"no account for {key}")
