"""Caps that renew: money counts in the period in which it was reserved, and each period keeps its cap."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from actors.errors.families import BudgetExceeded, Permanent
from actors.events import CAP_ALERT, CLOCK_ALERT, AlertCleared, AlertRaised
from actors.ledger.entries import CapRenewed
from actors.ledger.ledger import Ledger
from actors.ledger.messages import BookCall, CloseAccount, GetStatement, OpenAccount, Reservation, Reserve, SetCap
from actors.ledger.periods import Renewal
from runtime import ActorSystem, AskTimeout
from tests.actors.ledger.clock import Clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from actors.ledger.statement import Statement
    from runtime import ActorRef

HOUR = 3600.0
DAY = 24 * HOUR


class Wallet:
    """A ledger with one account whose cap renews, and the clock that it goes by."""

    def __init__(self, ref: ActorRef[Any], clock: Clock) -> None:
        self.ref = ref
        self.clock = clock
        self.number = 0

    async def reserve(
        self,
        amount: str,
        account: str = "a",
        *,
        wait: bool = False,
        timeout: float = 10.0,  # noqa: ASYNC109 - a deadline.
    ) -> Reservation:
        self.number += 1
        wish = Reserve(key=f"k{self.number}", provider="alder", amount=amount, accounts=(account,), wait=wait)
        return await self.ref.ask(wish, timeout=timeout)

    def tell(self, reservation: Reservation, charged: Any = "yes", cost: str | None = None) -> None:
        self.ref.tell(BookCall(reservation, charged, cost))

    async def statement(self, account: str = "a") -> Statement:
        return await self.ref.ask(GetStatement(account), timeout=1.0)

    async def left(self, account: str = "a") -> str:
        return str((await self.statement(account)).available)


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
async def wallet(clock: Clock) -> AsyncIterator[Wallet]:
    made: list[Ledger] = []

    def make() -> Ledger:
        made.append(Ledger())
        return made[-1]

    async with ActorSystem("shop", log=False) as system:
        wallet = Wallet(system.spawn(make), clock)
        await wallet.ref.ask(OpenAccount(name="a", cap="5/day", zone="Europe/Berlin"), timeout=1.0)
        yield wallet
        await asyncio.sleep(0.1)
        assert list(made[0].book.broken_invariants()) == []


async def test_a_cap_renews_at_the_midnight_of_its_zone(wallet: Wallet):
    for _ in range(2):
        wallet.tell(await wallet.reserve("5"))
        with pytest.raises(BudgetExceeded) as refused:
            await wallet.reserve("0.01")
        await asyncio.sleep((refused.value.retry_after or 0.0) - 1.0)
        assert await wallet.left() == "$0.00"
        await asyncio.sleep(1.0)
        assert await wallet.left() == "$5.00"
    statement = await wallet.statement()
    assert (str(statement.settled), str(statement.used), statement.renewal) == (
        "$10.00",
        "$0.00",
        Renewal("day", "Europe/Berlin"),
    )


async def test_a_refusal_says_when_the_cap_renews(wallet: Wallet):
    wallet.tell(await wallet.reserve("5"))
    with pytest.raises(BudgetExceeded, match="wait 43200 s until it renews") as refused:
        await wallet.reserve("1")
    assert refused.value.retry_after == pytest.approx(12 * HOUR, abs=1.0)
    with pytest.raises(BudgetExceeded) as refused:
        await wallet.reserve("6")  # More than any period has.
    assert refused.value.retry_after is None


@pytest.mark.parametrize("charged", ["yes", "no", "held"])
@pytest.mark.parametrize("cost", [None, "1", "4.50"])
async def test_what_becomes_of_money_counts_in_the_period_in_which_it_was_reserved(
    wallet: Wallet, charged: Any, cost: str | None
):
    late = await wallet.reserve("4")
    await asyncio.sleep(DAY)
    today = await wallet.reserve("5")
    wallet.tell(late, charged, cost if charged == "yes" else None)
    statement = await wallet.statement()
    assert (str(statement.used), str(statement.available)) == ("$5.00", "$0.00")
    in_all = {"yes": {None: "$4.00", "1": "$1.00", "4.50": "$4.50"}[cost]}.get(charged, "$0.00")
    assert str(statement.settled) == in_all
    wallet.tell(today, "no")
    assert await wallet.left() == "$5.00"


async def test_a_lifetime_cap_above_counts_all_periods(wallet: Wallet):
    await wallet.ref.ask(OpenAccount(name="team", cap="8"), timeout=1.0)
    await wallet.ref.ask(OpenAccount(name="agent", cap="5/day", parent="team"), timeout=1.0)
    wallet.tell(await wallet.reserve("5", "agent"))
    await asyncio.sleep(DAY)
    with pytest.raises(BudgetExceeded) as refused:
        await wallet.reserve("4", "agent")
    assert (refused.value.cap, refused.value.account, refused.value.retry_after) == ("team", "agent", None)
    wallet.tell(await wallet.reserve("3", "agent"))


async def test_a_request_that_may_wait_waits_for_the_renewal_and_holds_up_none_that_fits(wallet: Wallet):
    wallet.tell(await wallet.reserve("3"))
    waiting = asyncio.create_task(wallet.reserve("4", wait=True, timeout=DAY))
    await asyncio.sleep(1.0)
    wallet.tell(await wallet.reserve("1"))
    await asyncio.sleep(11 * HOUR)
    assert not waiting.done()
    with pytest.raises(AskTimeout):
        await wallet.reserve("2", wait=True, timeout=60.0)
    wallet.tell(await waiting)
    assert await wallet.left() == "$1.00"
    assert wallet.clock.now() % DAY == pytest.approx(22 * HOUR, abs=5.0)  # Midnight in Berlin, in summer.


async def test_requests_that_wait_for_the_renewal_are_served_in_order(wallet: Wallet):
    wallet.tell(await wallet.reserve("5"))
    tasks = [asyncio.create_task(wallet.reserve("2", wait=True, timeout=3 * DAY)) for _ in range(5)]
    done_at: list[float] = []
    for task in tasks:
        wallet.tell(await task)
        done_at.append(wallet.clock.now() // DAY)
    assert done_at == [done_at[0]] * 2 + [done_at[0] + 1] * 2 + [done_at[0] + 2]


async def test_a_clock_that_goes_back_stays_in_the_newer_period_and_one_that_leaps_ahead_renews_once(
    wallet: Wallet, clock: Clock
):
    wallet.tell(await wallet.reserve("5"))
    clock.ahead += 3 * DAY
    assert await wallet.left() == "$5.00"
    wallet.tell(await wallet.reserve("5"))
    clock.ahead -= 3 * DAY
    for _ in range(3):
        assert await wallet.left() == "$0.00"
        with pytest.raises(BudgetExceeded) as refused:
            await wallet.reserve("1")
        await asyncio.sleep(DAY)
    assert refused.value.retry_after == pytest.approx(1.5 * DAY, abs=60.0)


async def test_a_leap_of_the_clock_raises_an_alert_until_the_next_renewal(clock: Clock):
    events: list[Any] = []
    async with ActorSystem("shop", log=False) as system:
        for kind in (AlertRaised, AlertCleared, CapRenewed):
            system.events.subscribe(kind, events.append)
        wallet = Wallet(system.spawn(lambda: Ledger(accounts={"a": "5/day"})), clock)
        await wallet.left()
        await asyncio.sleep(DAY)
        await wallet.left()
        assert [type(one) for one in events] == [CapRenewed]
        clock.ahead += 100 * DAY
        await wallet.left()
        assert [type(one) for one in events[1:]] == [CapRenewed, AlertRaised]
        assert (events[2].rule, events[2].subject, events[2].value) == (CLOCK_ALERT, "a", pytest.approx(100 * DAY))
        await asyncio.sleep(DAY)
        await wallet.left()
        assert [type(one) for one in events[3:]] == [CapRenewed, AlertCleared]


async def test_the_alert_of_a_cap_holds_for_a_period(clock: Clock):
    events: list[Any] = []
    async with ActorSystem("shop", log=False) as system:
        for kind in (AlertRaised, AlertCleared):
            system.events.subscribe(kind, events.append)
        wallet = Wallet(system.spawn(lambda: Ledger(accounts={"a": "5/day"})), clock)
        for _ in range(2):
            late = await wallet.reserve("4.50")
            await asyncio.sleep(DAY)
            wallet.tell(await wallet.reserve("1"))
            wallet.tell(late, cost="9")  # This concerns a period that is over.
            await wallet.left()
            assert [(type(one), one.rule) for one in events] == [(AlertRaised, CAP_ALERT), (AlertCleared, CAP_ALERT)]
            assert (events[0].value, events[1].value) == (pytest.approx(0.9), 0.0)
            events.clear()
            await asyncio.sleep(DAY)


async def test_of_a_rolling_window_money_is_free_when_the_window_has_passed_and_never_before(clock: Clock):
    async with ActorSystem("shop", log=False) as system:
        wallet = Wallet(system.spawn(lambda: Ledger(accounts={"a": "5/hour rolling"})), clock)
        spent = list[tuple[float, float]]()
        for _ in range(200):
            await asyncio.sleep(97.0)
            free = 5.0 - sum(amount for at, amount in spent if clock.now() - at < HOUR)
            left = float((await wallet.left()).removeprefix("$"))
            held_back = sum(amount for at, amount in spent if HOUR <= clock.now() - at < HOUR + 60.0)
            assert free - held_back - 1e-6 <= left <= free + 1e-6
            if left >= 0.4:
                wallet.tell(await wallet.reserve("0.40"))
                spent.append((clock.now(), 0.4))
        assert len(spent) > 50
        begun = clock.now()
        wallet.tell(await wallet.reserve("3", wait=True, timeout=DAY))
        assert clock.now() - begun <= HOUR + 60.0


async def test_a_cap_that_is_set_goes_on_renewing_as_before(wallet: Wallet):
    wallet.tell(await wallet.reserve("5"))
    statement = await wallet.ref.ask(SetCap("a", "7"), timeout=1.0)
    assert (str(statement.available), statement.renewal) == ("$2.00", Renewal("day", "Europe/Berlin"))
    await asyncio.sleep(DAY)
    assert await wallet.left() == "$7.00"
    statement = await wallet.ref.ask(SetCap("a", "1/hour"), timeout=1.0)
    assert statement.renewal == Renewal("hour")
    wallet.tell(await wallet.reserve("1"))
    await asyncio.sleep(HOUR)
    wallet.tell(await wallet.reserve("1"))


async def test_what_is_no_cap_is_refused_at_the_door():
    with pytest.raises(ValueError, match="did you mean 'day'"):
        OpenAccount(name="a", cap="5/dya")
    with pytest.raises(ValueError, match="did you mean 'Europe/Berlin'"):
        OpenAccount(name="a", cap="5/day", zone="Berlin")
    with pytest.raises(ValueError, match="did you mean"):
        Ledger(accounts={"a": "5/wek"})


async def test_a_closed_account_answers_with_what_it_has_spent_in_all(wallet: Wallet):
    late = await wallet.reserve("4")
    await asyncio.sleep(DAY)
    wallet.tell(await wallet.reserve("5"))
    closing = asyncio.create_task(wallet.ref.ask(CloseAccount(name="a"), timeout=5.0))
    await asyncio.sleep(1.0)
    wallet.tell(late)
    assert str((await closing).settled) == "$9.00"
    with pytest.raises(Permanent):
        await wallet.reserve("1")


async def test_an_account_that_renews_bounds_no_risk(wallet: Wallet):
    first = await wallet.reserve("1")
    wallet.tell(first, "held")
    wish = Reserve(key=first.key, provider="birch", amount="1", passes_over=(first.number,), risk_account="a")
    with pytest.raises(Permanent, match="name another as risk_account"):
        await wallet.ref.ask(wish, timeout=1.0)


@pytest.mark.parametrize("cap", ["5/day in Europe/Berlin", "5/day rolling"])
async def test_periods_outlive_the_program(clock: Clock, tmp_path: Path, cap: str):
    path = tmp_path / "money.journal"
    for day in range(3):
        async with ActorSystem("shop", log=False) as system:
            wallet = Wallet(system.spawn(lambda: Ledger(accounts={"a": cap}, journal=path)), clock)
            wallet.number = day * 10
            wallet.tell(await wallet.reserve("3"))
            await wallet.reserve("1")
        async with ActorSystem("shop", log=False) as system:
            wallet = Wallet(system.spawn(lambda: Ledger(accounts={"a": cap}, journal=path)), clock)
            wallet.number = day * 10 + 5
            statement = await wallet.statement()
            assert (str(statement.available), str(statement.period.held)) == ("$1.00", "$1.00")  # type: ignore[union-attr]
            assert str(statement.settled) == f"${3 * (day + 1)}.00"
            with pytest.raises(BudgetExceeded):
                await wallet.reserve("2")
        clock.ahead += DAY + HOUR
