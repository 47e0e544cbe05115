"""Values that are kept beside the money: listed a part at a time, and refused if they are damaged."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from actors.errors.families import Permanent
from actors.ledger.beside import MAX_LISTED, FindValue, KeepValue, ListValues, all_heads
from actors.ledger.errors import JournalUnreadable
from actors.ledger.ledger import Ledger
from actors.ledger.messages import AwaitCommit, GetStatement
from runtime import ActorSystem
from runtime.persistence import key_digest
from tests.actors.ledger.journalled import spawn

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_large_scope_is_listed_a_part_at_a_time(tmp_path: Path) -> None:
    async with ActorSystem("bank", log=False) as system:
        ledger, _ = spawn(system, tmp_path / "l.db")
        count = 2 * MAX_LISTED + 1
        for number in range(count):
            await ledger.send(KeepValue(scope="items", key=str(number), head=b"%d" % number))
        await ledger.ask(AwaitCommit(), timeout=5)
        first = await ledger.ask(ListValues("items"), timeout=5)
        assert len(first.heads) == MAX_LISTED
        every = await all_heads(ledger, "items", timeout=5)
        assert every.heads == {key_digest("items", str(number)): b"%d" % number for number in range(count)}
        assert (every.path, every.after) == (str(tmp_path / "l.db"), None)


async def test_a_value_that_is_damaged_is_refused_and_ends_no_ledger(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with ActorSystem("bank", log=False) as system:
        ledger, _ = spawn(system, path)
        for key in ("a", "b"):
            ledger.tell(KeepValue(scope="items", key=key, head=b"kept"))
        await ledger.ask(AwaitCommit(), timeout=5)
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE kept SET head = x'00' WHERE digest = ?", (key_digest("items", "a"),))
    async with ActorSystem("bank", log=False) as system:
        ledger, made = spawn(system, path)
        for asked in (FindValue("items", "a"), ListValues("items")):
            with pytest.raises(JournalUnreadable, match=r"is not known: .* is damaged in what it keeps") as refusal:
                await ledger.ask(asked, timeout=5)
            assert (refusal.value.path, refusal.value.charged) == (str(path), "no")
        found = await ledger.ask(FindValue("items", "b"), timeout=5)
        assert found is not None and found.head == b"kept"  # noqa: PT018 - for the type.
        await ledger.ask(GetStatement(), timeout=5)
        assert len(made) == 1


async def test_a_ledger_without_a_journal_keeps_no_values() -> None:
    async with ActorSystem("bank", log=False) as system:
        ledger = system.spawn(Ledger)
        ledger.tell(KeepValue(scope="items", key="a", head=b"kept"))
        assert await ledger.ask(FindValue("items", "a"), timeout=5) is None
        with pytest.raises(Permanent, match="has no journal to keep values in"):
            await ledger.ask(ListValues("items"), timeout=5)
