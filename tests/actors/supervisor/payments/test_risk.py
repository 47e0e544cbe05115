"""What may be paid twice at most: calls whose outcome is unknown are passed over within a request's risk."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from actors import (
    AllProvidersFailed,
    BudgetExceeded,
    CallFailed,
    FunctionTransport,
    Ledger,
    Listing,
    Market,
    Micros,
    OutcomeUnknown,
    Permanent,
    Provider,
    RequestOptions,
    Retry,
    SmartRequest,
    Supervisor,
    Transient,
    Unknown,
    robust_batch,
    smart_request,
    to_micros,
)
from actors.ledger import (
    GetHeld,
    GetStatement,
    OpenAccount,
    PauseAccount,
    Resolve,
    ResumeAccount,
    RiskExceeded,
    StillUnsettled,
)
from actors.ledger.ledger import LEDGERS
from actors.transports import Answered, Lost, NeverRan, UnderWay
from runtime import ActorSystem
from tests.actors.supervisor.payments.test_reconciler import LATE, Desk, Door, Telling, desk

if TYPE_CHECKING:
    from pathlib import Path

    from actors import ProviderCall


class Refusing(Door):
    """Fails every call by the same error, and charges for none."""

    def __init__(self, name: str, *, refusal: CallFailed) -> None:
        super().__init__(name)
        self.refusal = refusal

    async def answer(self, call: ProviderCall) -> Any:
        self.calls.append(call)
        raise self.refusal


def three(*, breaks: int = 9) -> tuple[Door, Door, Door]:
    return Door("alder", breaks=breaks), Door("birch", breaks=breaks), Door("cedar", breaks=0)


@pytest.mark.parametrize(
    ("risk", "answered_by", "at_risk"), [("0.00001", None, 0), ("0.000029", None, 10), ("0.00003", "cedar", 30)]
)
async def test_other_providers_are_paid_besides_unknown_calls_as_long_as_these_hold_no_more_than_the_risk(
    risk: str, answered_by: str | None, at_risk: int
):
    alder, birch, cedar = three()
    async with desk(alder.listing(20 if at_risk == 0 else 10), birch.listing(20), cedar.listing(30)) as one:
        asking = one.request(risk=risk, idempotency_key="order 1")
        if answered_by is None:
            with pytest.raises(OutcomeUnknown) as unknown:
                await asking
            left = unknown.value
            assert left.key == "order 1"
            assert cedar.calls == []
        else:
            left = await asking
            assert (left.provider, left.cost) == (answered_by, 30)
        assert left.at_risk == at_risk
        held = await one.supervisor.ask(GetHeld(), timeout=1.0)
        assert [(one.provider, one.amount, one.key, one.reservation) for one in left.held] == [
            (one.provider, one.amount, one.key, one.reservation) for one in held
        ]
        for charge in left.held:
            await one.supervisor.ask(Resolve(charge.reservation, "no"), timeout=1.0)
        assert await one.held() == []


async def test_a_risk_of_nothing_is_the_default_and_hold():
    for terms in ({}, {"risk": "0"}, {"on_unknown": "hold"}):
        alder, birch, _ = three()
        async with desk(alder.listing(), birch.listing(20)) as one:
            with pytest.raises(OutcomeUnknown) as unknown:
                await one.request(**terms)
            assert birch.calls == []
            assert (unknown.value.at_risk, [held.amount for held in unknown.value.held]) == (0, [10])


async def test_the_risk_of_a_market_is_each_requests_default_and_its_own_overrides_it():
    for market, terms, goes_on in (
        ({"risk": "0.00001"}, {}, True),
        ({"risk": "0.00001"}, {"on_unknown": "hold"}, False),
        ({"risk": "0.00001"}, {"risk": "0"}, False),
        ({"risk": "0.000005"}, {}, False),
        ({"risk": "0.000005"}, {"risk": "0.00001"}, True),
        ({"risk": "0.000005"}, {"on_unknown": "pay_again"}, True),
    ):
        alder, birch = Door("alder", breaks=9), Door("birch", breaks=0)
        async with desk(alder.listing(), birch.listing(20), **market) as one:
            if goes_on:
                result = await one.request(**terms)
                assert (result.provider, result.at_risk, [held.provider for held in result.held]) == (
                    "birch",
                    10,
                    ["alder"],
                )
            else:
                with pytest.raises(OutcomeUnknown):
                    await one.request(**terms)


@pytest.mark.parametrize("terms", [{"risk": "1"}, {"on_unknown": "pay_again"}])
async def test_a_listing_that_holds_is_never_passed_over(terms: Any):
    alder, birch = Door("alder", breaks=9), Door("birch", breaks=0)
    async with desk(alder.listing(on_unknown="hold"), birch.listing(20)) as one:
        with pytest.raises(OutcomeUnknown):
            await one.request(**terms)
        assert birch.calls == []


@pytest.mark.parametrize("is_listed", [True, False])
async def test_a_call_made_by_terms_that_hold_is_not_passed_over_in_a_later_run(is_listed: bool, tmp_path: Path):  # noqa: FBT001
    alder, birch = Door("alder", breaks=9), Door("birch", breaks=0)
    offers = [[alder.listing(on_unknown="hold")], [*([alder.listing()] if is_listed else []), birch.listing(20)]]
    for listings in offers:
        async with ActorSystem("desk", seed=1) as system:
            ledger = system.spawn(lambda: Ledger(journal=tmp_path / "run.db"))
            supervisor = system.spawn(
                lambda listings=listings, ledger=ledger: Supervisor(Market(providers=listings), ledger=ledger)
            )
            for terms in ({"risk": "1"}, {"on_unknown": "pay_again"}):
                with pytest.raises((OutcomeUnknown, StillUnsettled)):
                    await smart_request(supervisor, service="s", input="x", idempotency_key="order 1", **terms)
    assert birch.calls == []


@pytest.mark.parametrize("found", [Answered(LATE), NeverRan(), Lost(Micros(7))])
async def test_what_can_be_found_out_is_before_anything_is_put_at_risk(found: Any):
    alder, birch = Telling("alder", found), Door("birch", breaks=0)
    async with desk(alder.listing(), birch.listing(20)) as one:
        result = await one.request(risk="1")
        assert (result.at_risk, result.held) == (0, ())
        assert result.provider == ("alder" if isinstance(found, Answered) else "birch")


async def test_a_call_that_can_be_repeated_under_its_key_is_before_it_is_passed_over():
    alder, birch = Door("alder", idempotent="key"), Door("birch", breaks=0)
    async with desk(alder.listing(), birch.listing(20)) as one:
        result = await one.request(risk="1")
        assert (result.provider, result.at_risk, len(alder.calls)) == ("alder", 0, 2)
    alder = Door("alder", breaks=99, idempotent="key")
    async with desk(alder.listing(), birch.listing(20), retry=Retry(max_retries=1, base=0.0, cap=0.0)) as one:
        result = await one.request(risk="1")
        assert (result.provider, result.at_risk, len(alder.calls)) == ("birch", 10, 2)


async def test_late_news_of_a_call_that_was_passed_over_settles_or_releases_it():
    for found, held, settled, room in ((NeverRan(), [], 20, 10), (Answered(LATE), [], 28, 2), (OSError(), [10], 20, 0)):
        alder, birch = Telling("alder", UnderWay(), UnderWay(), found), Door("birch", breaks=0)
        async with desk(alder.listing(), birch.listing(20), risk_total="0.00001") as one:
            assert (await one.request(risk="1")).at_risk == 10
            assert await one.held() == [10]
            await asyncio.sleep(100.0)
            assert (await one.held(), await one.settled()) == (held, settled)
            risk = await one.supervisor.ask(GetStatement("risk"), timeout=1.0)
            assert (risk.held, risk.available) == (sum(held), room)


async def test_news_that_comes_before_the_answer_lowers_what_the_answer_leaves_at_risk():
    alder, birch = Telling("alder", UnderWay(), UnderWay(), NeverRan()), Door("birch", breaks=0)
    birch_lasts = Listing(
        provider=Provider(name="birch", services={"s"}, price=Micros(20)),
        transport=lambda: FunctionTransport(slow, paid=True, idempotent="no"),
        timeout=60.0,
    )

    async def slow(_call: ProviderCall) -> str:
        await asyncio.sleep(50.0)
        return "slow"

    async with desk(alder.listing(), birch_lasts) as one:
        asking = asyncio.create_task(one.request(risk="1", timeout=100.0))
        await asyncio.sleep(10.0)
        # When a request ends, the supervisor looks after what is held.
        assert (await one.request(idempotency_key="another")).provider == "alder"
        result = await asking
        assert (result.output, result.at_risk, result.held) == ("slow", 0, ())
        assert birch.calls == []


async def test_the_total_of_a_run_bounds_what_all_its_requests_leave_at_risk():
    alder, birch = Door("alder", breaks=99), Door("birch", breaks=0)
    async with desk(alder.listing(), birch.listing(20), risk="1", risk_total="0.000025") as one:
        for _ in range(2):
            assert (await one.request()).provider == "birch"
        with pytest.raises(OutcomeUnknown, match="account 'risk' allows") as unknown:
            await one.request()
        assert (unknown.value.provider, unknown.value.at_risk) == ("alder", 0)
        first = (await one.supervisor.ask(GetHeld("risk"), timeout=1.0))[0]
        await one.supervisor.ask(Resolve(first.reservation, "no"), timeout=1.0)
        assert (await one.request()).at_risk == 10


async def test_what_was_passed_over_in_vain_is_not_at_risk():
    alder, birch = (
        Door("alder", breaks=99),
        Refusing("birch", refusal=Transient("birch is down", outcome="not_started")),
    )
    async with desk(alder.listing(), birch.listing(20), risk_total="0.00001") as one:
        for _ in range(3):
            with pytest.raises(AllProvidersFailed) as failed:
                await one.request(risk="1")
            assert (failed.value.charged, failed.value.at_risk, len(failed.value.held)) == ("held", 0, 1)
        risk = await one.supervisor.ask(GetStatement("risk"), timeout=1.0)
        assert (risk.held, risk.reserved, risk.settled) == (0, 0, 0)
        assert await one.supervisor.ask(GetHeld("risk"), timeout=1.0) == ()


@pytest.mark.parametrize("terms", [{"risk": "1"}, {"on_unknown": "pay_again"}])
async def test_a_request_that_ends_by_a_refusal_says_that_a_call_it_passed_over_may_be_charged(terms: Any):
    alder, birch = Door("alder", breaks=9), Refusing("birch", refusal=Permanent("bad input", provider="birch"))
    async with desk(alder.listing(), birch.listing(20)) as one:
        request = RequestOptions(strategy="cheapest", timeout=5.0, **terms).request("s", "x")
        async with robust_batch(one.supervisor, [request]) as outcomes:
            (unknown,) = [outcome async for outcome in outcomes]
        assert isinstance(unknown, Unknown)
        error = unknown.error
        assert (type(error), error.charged, [held.provider for held in error.held]) == (Permanent, "held", ["alder"])
        assert error.at_risk == 0
        assert birch.refusal.charged == "no"


async def test_every_further_call_is_reserved_under_the_same_caps():
    alder, birch = Door("alder", breaks=9), Door("birch", breaks=0)
    async with desk(alder.listing(), birch.listing(20)) as one:
        with pytest.raises(AllProvidersFailed) as failed:
            await one.request(risk="1", budget="0.000029")
        assert isinstance(failed.value.refused[0], BudgetExceeded)
        assert (failed.value.charged, failed.value.at_risk) == ("held", 0)
        assert birch.calls == []


@pytest.mark.parametrize(("risk", "goes_on"), [("0.000029", False), ("0.00003", True)])
async def test_what_earlier_runs_left_held_under_a_key_counts(risk: str, goes_on: bool, tmp_path: Path):  # noqa: FBT001
    alder, birch, cedar = three()
    asked: list[Any] = []
    for listings, terms in (
        ([alder.listing(10)], {}),
        ([alder.listing(10), birch.listing(20)], {"risk": "0.00001"}),
        ([birch.listing(20), cedar.listing(30)], {"risk": risk}),  # Alder is not listed any more.
    ):
        async with ActorSystem("desk", seed=1) as system:
            ledger = system.spawn(lambda: Ledger(journal=tmp_path / "run.db"))
            market = Market(providers=listings, risk_total="0.00003")
            supervisor = system.spawn(lambda market=market, ledger=ledger: Supervisor(market, ledger=ledger))
            try:
                asked.append(await smart_request(supervisor, service="s", input="x", idempotency_key="k", **terms))
            except (OutcomeUnknown, StillUnsettled) as error:
                asked.append(error)
            if len(asked) == 2:
                assert (await ledger.ask(GetStatement("risk"), timeout=1.0)).held == 10
            if len(asked) == 3:
                risk_account = await ledger.ask(GetStatement("risk"), timeout=1.0)
                assert risk_account.held == (30 if goes_on else 10)
                if goes_on:
                    again = await smart_request(supervisor, service="s", input="x", idempotency_key="k", risk="1")
                    assert (again.replayed, again.cost) == (True, 0)
    assert len(cedar.calls) == goes_on
    assert [type(one).__name__ == "SmartResult" for one in asked] == [False, False, goes_on]
    if goes_on:
        assert (asked[-1].at_risk, sorted(one.provider for one in asked[-1].held)) == (30, ["alder", "birch"])


async def test_two_requests_under_one_key_pay_one_provider_besides():
    alder, birch, cedar = Door("alder", breaks=9), Door("birch", breaks=0), Door("cedar", breaks=0)
    async with desk(alder.listing(), birch.listing(20), cedar.listing(30)) as one:
        with pytest.raises(OutcomeUnknown):
            await one.request(idempotency_key="k")
        both = await asyncio.gather(
            *(one.request(idempotency_key="k", risk="1", timeout=5.0) for _ in range(2)), return_exceptions=True
        )
        assert len(birch.calls) + len(cedar.calls) == 1
        assert sorted(type(one).__name__ for one in both) == ["SmartResult", "SmartResult"]
        assert sorted(one.cost > 0 for one in both) == [False, True]


async def test_a_cancelled_request_gives_its_risk_back():
    alder, birch = Door("alder", breaks=99), Door("birch", breaks=0)
    async with desk(alder.listing(), birch.listing(20), risk="1", risk_total="0.00003") as one:
        for after in (0.0, 0.4, 0.5, 0.50001, 0.7, 0.99):
            asking = asyncio.create_task(one.request())
            await asyncio.sleep(after)
            asking.cancel()
            await asyncio.wait([asking])
            await asyncio.sleep(1.0)
            for held in await one.supervisor.ask(GetHeld(), timeout=1.0):
                await one.supervisor.ask(Resolve(held.reservation, "no"), timeout=1.0)
            risk = await one.supervisor.ask(GetStatement("risk"), timeout=1.0) if birch.calls else None
            assert risk is None or (risk.held, risk.reserved, risk.settled) == (0, 0, 0)


def test_a_risk_is_an_amount_and_says_what_on_unknown_says():
    assert RequestOptions(risk="0.05").request("s", "x").risk == to_micros("0.05")
    pays_again = RequestOptions(on_unknown="pay_again")
    assert (pays_again.changed(risk="1").on_unknown, pays_again.changed(risk="1").risk) == (None, to_micros("1"))
    assert RequestOptions(risk="1").changed(on_unknown="hold").risk is None
    for wrong in ({"on_unknown": "pay_again", "risk": "1"}, {"on_unknown": "hold", "risk": "1"}, {"risk": "-1"}):
        with pytest.raises(ValueError, match=r"risk|negative"):
            RequestOptions(**wrong)
    with pytest.raises(TypeError):
        RequestOptions(risk=0.5)  # pyright: ignore[reportArgumentType]
    for risk, error in (
        (True, TypeError),
        (0.5, TypeError),
        ("much", ValueError),
        ("-1", ValueError),
        (5_000, ValueError),
    ):
        with pytest.raises(error, match="risk"):
            SmartRequest(service="s", input=1, timeout=1.0, risk=risk)  # pyright: ignore[reportArgumentType]


async def test_what_one_request_asks_about_while_another_keeps_it_does_not_busy_the_supervisor():
    alder, birch = Telling("alder", UnderWay(), breaks=9), Door("birch", breaks=0)
    async with desk(alder.listing(), birch.listing(20)) as one:
        first = asyncio.create_task(one.request(idempotency_key="k", timeout=40.0))
        await asyncio.sleep(1.0)
        with pytest.raises(OutcomeUnknown, match="goes on for others"):
            await one.request(idempotency_key="k", risk="0", timeout=2.0)
        with pytest.raises(OutcomeUnknown):
            await first
        assert await one.held() == [10]


@pytest.mark.parametrize("is_listed", [True, False])
async def test_a_request_that_an_earlier_call_keeps_from_going_on_names_that_call(is_listed: bool, tmp_path: Path):  # noqa: FBT001
    alder, birch = Door("alder", breaks=9), Door("birch", breaks=0)
    for listings in ([alder.listing()], [*([alder.listing()] if is_listed else []), birch.listing(20)]):
        async with ActorSystem("desk", seed=1) as system:
            ledger = system.spawn(lambda: Ledger(journal=tmp_path / "run.db"))
            supervisor = system.spawn(
                lambda listings=listings, ledger=ledger: Supervisor(Market(providers=listings), ledger=ledger)
            )
            with pytest.raises((OutcomeUnknown, StillUnsettled)) as refused:
                await smart_request(supervisor, service="s", input="x", idempotency_key="order 1", risk="0.000005")
            (held,) = await ledger.ask(GetHeld(), timeout=1.0)
            assert [(one.reservation, one.amount) for one in refused.value.held] == [(held.reservation, 10)]
            assert refused.value.at_risk == 0


@pytest.mark.parametrize("terms", [{}, {"on_unknown": "hold"}])
async def test_a_repeatable_call_is_repeated_as_declared_and_the_answer_says_what_that_left_at_stake(terms: Any):
    alder = Door("alder", breaks=2, idempotent="repeatable")
    async with desk(alder.listing(**terms)) as one:
        result = await one.request()
        assert (result.output, result.cost, len(alder.calls)) == ("alder", 10, 3)
        assert (result.at_risk, [held.provider for held in result.held]) == (20, ["alder", "alder"])
        assert await one.held() == [10, 10]


async def test_a_paused_account_of_what_is_at_risk_says_that_it_is_paused():
    alder, birch = Door("alder", breaks=9), Door("birch", breaks=0)
    async with ActorSystem("desk", seed=1) as system:
        one = Desk(system, Market(providers=[alder.listing(), birch.listing(20)], risk_total="1"))
        await asyncio.sleep(0.1)
        ledger = system.registry.find_one(LEDGERS)
        assert ledger is not None
        await ledger.ask(OpenAccount(name="risk", cap="1"), timeout=1.0)
        await ledger.ask(PauseAccount("risk"), timeout=1.0)
        with pytest.raises(OutcomeUnknown) as unknown:
            await one.request(risk="1")
        refusal = unknown.value.__cause__
        assert isinstance(refusal, RiskExceeded)
        assert (refusal.is_paused, refusal.limit) == (True, 0)
        assert "account 'risk' is paused" in str(refusal)
        assert birch.calls == []
        await ledger.ask(ResumeAccount("risk"), timeout=1.0)
        assert (await one.request(risk="1")).provider == "birch"
