"""What was paid under a key is known for as long as money is held under it, however old the key is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from actors.ledger.config import LedgerConfig
from actors.ledger.entries import MoneyHeld
from actors.ledger.errors import AlreadyPaid
from actors.ledger.journal import MoneyJournal
from actors.ledger.messages import BookCall, Resolve
from runtime import ActorSystem
from tests.actors.ledger.clock import Clock
from tests.actors.ledger.journalled import reserve, spawn

if TYPE_CHECKING:
    from pathlib import Path

    from runtime import ActorRef

DAY = 86_400.0


async def days(ledger: ActorRef[Any], made: list[Any], clock: Clock, count: int, *, prefix: str) -> None:
    """Let days pass with one purchase each, and then look for what is too old."""
    for day in range(count):
        clock.ahead += DAY
        ledger.tell(BookCall(await reserve(ledger, f"{prefix}{day}", 1)))
    store = made[-1].bookkeeper.commits.journal.store
    store.commit()
    while store.tend():
        pass


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_a_key_is_known_as_long_as_money_is_held_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_restarted: bool
) -> None:
    path, clock = tmp_path / "l.db", Clock(monkeypatch)
    config = LedgerConfig(keys_for=5 * DAY, answers_for=2 * DAY, max_paid_keys=1)
    async with ActorSystem("bank", log=False) as system:
        ledger, made = spawn(system, path, config=config, accounts={"run": None, "batch": None})
        for key in ("order", "plain"):
            ledger.tell(BookCall(await reserve(ledger, key, 100)))
        held = await reserve(ledger, "order", 50, intent="again")
        ledger.tell(BookCall(held, "held"))
        if not is_restarted:
            await days(ledger, made, clock, 12, prefix="a")
    async with ActorSystem("bank", log=False) as system:
        ledger, made = spawn(system, path, config=config, accounts={"run": None, "batch": None})
        await days(ledger, made, clock, 12, prefix="b")
        paid = made[-1].bookkeeper.commits.paid
        assert (paid("order"), paid("plain")) == ((100, "alder"), None)
        await ledger.ask(Resolve(held.number, "no"), timeout=5)
        with pytest.raises(AlreadyPaid):
            await reserve(ledger, "order", 1)
        await days(ledger, made, clock, 12, prefix="c")
        assert paid("order") is None


def test_of_two_calls_that_are_held_under_a_key_each_keeps_it() -> None:
    journal = MoneyJournal(":memory:")
    for number in (1, 2):
        journal.append(MoneyHeld(reservation=number, key="k", provider="a", accounts=(), held=1, at=1.0))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    journal._let_go("k", 1)
    assert len(journal.store._spared) == 2
    journal._let_go("k", 2)
    journal._let_go("k", 2)
    assert journal.store._spared == set()
