"""Held money has an age: after it, the call counts as charged, and its key is paid without an answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors import Micros, OutcomeUnknown, SmartRequest, Unknown, robust_batch
from actors.errors import Unclassified
from actors.events import HeldExpired, Reconciled
from actors.ledger import GetHeld, GetStatement, PaidUnanswered, Resolve
from actors.transports import Answered, Lost, NeverRan, UnderWay
from tests.actors.supervisor.payments.test_reconciler import LATE, Desk, Door, Telling, desk


async def leave_unknown(one: Desk, **terms: Any) -> None:
    with pytest.raises(OutcomeUnknown):
        await one.request(idempotency_key="order 1", **terms)


@pytest.mark.parametrize("terms", [{}, {"risk": "1"}, {"on_unknown": "pay_again"}])
async def test_a_key_that_is_paid_without_an_answer_is_never_bought_again_and_never_done(terms: Any):
    alder, birch = Door("alder"), Door("birch", breaks=0)
    async with desk(alder.listing(held_for=60.0), birch.listing(20)) as one:
        await leave_unknown(one)
        await asyncio.sleep(61.0)
        assert (await one.settled(), await one.held()) == (10, [])
        assert [(event.provider, event.key, event.amount) for event in one.of(HeldExpired)] == [
            ("alder", "order 1", 10)
        ]
        with pytest.raises(PaidUnanswered, match="without an answer"):
            await one.request(idempotency_key="order 1", **terms)
        item = SmartRequest(service="s", input="x", timeout=5.0, idempotency_key="order 1")
        async with robust_batch(one.supervisor, [item]) as outcomes:
            assert [type(outcome) async for outcome in outcomes] == [Unknown]
        assert (len(alder.calls), birch.calls) == (1, [])


@pytest.mark.parametrize(
    ("found", "settled", "is_free"), [(NeverRan(), 0, True), (Answered(LATE), 8, False), (Lost(Micros(15)), 15, False)]
)
async def test_a_look_up_corrects_it_later(found: Any, settled: int, is_free: bool):  # noqa: FBT001
    alder = Telling("alder", *[OSError("not now")] * 8, found)
    async with desk(alder.listing(held_for=10.0)) as one:
        await leave_unknown(one, timeout=2.0)
        await asyncio.sleep(11.0)
        assert (await one.settled(), await one.held()) == (10, [])
        await asyncio.sleep(10_000.0)
        assert await one.settled() == settled
        assert len(one.of(Reconciled)) == 1
        if is_free:
            assert (await one.request(idempotency_key="order 1")).cost == 10
        elif isinstance(found, Answered):
            assert (await one.request(idempotency_key="order 1")).paid == settled
        else:
            with pytest.raises(Unclassified, match="its answer is lost"):
                await one.request(idempotency_key="order 1")


async def test_a_call_that_is_under_way_does_not_age_as_long_as_look_ups_say_so():
    alder = Telling("alder", *[UnderWay()] * 20, OSError("not now"))
    async with desk(alder.listing(held_for=30.0)) as one:
        await leave_unknown(one, timeout=2.0)
        while len(alder.asked_at) < 20:
            await asyncio.sleep(10.0)
            assert await one.held() == [10]
        await asyncio.sleep(1_000.0)
        assert (await one.settled(), await one.held()) == (10, [])
        (event,) = one.of(HeldExpired)
        assert event.provider == "alder"


async def test_what_was_passed_over_expires_as_paid_twice_and_is_corrected():
    alder, birch = Door("alder"), Door("birch", breaks=0)
    async with desk(alder.listing(held_for=60.0), birch.listing(20), risk="1", risk_total="1") as one:
        result = await one.request()
        await asyncio.sleep(61.0)
        risk = await one.supervisor.ask(GetStatement("risk"), timeout=1.0)
        assert (risk.held, risk.settled) == (0, 10)
        await one.supervisor.ask(Resolve(result.held[0].reservation, "no"), timeout=1.0)
        risk = await one.supervisor.ask(GetStatement("risk"), timeout=1.0)
        assert (risk.held, risk.settled, risk.used) == (0, 0, 0)
        assert await one.settled() == 20


async def test_without_an_age_it_is_held_for_ever():
    alder = Door("alder")
    async with desk(alder.listing()) as one:
        await leave_unknown(one)
        await asyncio.sleep(1e8)
        assert [held.key for held in await one.supervisor.ask(GetHeld(), timeout=1.0)] == ["order 1"]
