"""A paid provider that does not charge for its own errors is left at once, and holds nothing."""

from __future__ import annotations

from actors import OutcomeUnknown
from actors.errors.classification import classify_status
from tests.actors.supervisor.stage import Script, offer, staged


def answered(status: int, *, uncharged: bool) -> Exception:
    return classify_status(status, provider="a", paid=True, idempotent=False, uncharged=uncharged)


async def test_an_uncharged_500_reroutes_at_once_and_holds_nothing():
    a, b = Script(answered(500, uncharged=True)), Script("b")
    async with staged(offer("a", a, price=10), offer("b", b, price=20)) as stage:
        result = await stage.request(timeout=5.0)
        assert (result.output, len(a.calls), result.cost) == ("b", 1, 20)
        assert stage.ledger.book.unsettled() == ()
        await stage.assert_at_rest()


async def test_a_500_that_may_have_been_charged_is_held_and_calls_no_other_provider():
    a, b = Script(answered(500, uncharged=False)), Script("b")
    async with staged(offer("a", a, price=10), offer("b", b, price=20)) as stage:
        try:
            await stage.request(timeout=5.0)
        except OutcomeUnknown:
            pass
        else:
            raise AssertionError("the outcome of a paid call was taken for known")
        assert (len(a.calls), len(b.calls)) == (1, 0)
        assert len(stage.ledger.book.unsettled()) == 1
