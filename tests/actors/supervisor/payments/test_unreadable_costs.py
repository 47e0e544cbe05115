"""An answer is never thrown away because of its cost: what was reserved is paid, and an event tells of it."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from actors import FunctionTransport, Listing, OutcomeUnknown, Provider, ProviderCall, ProviderReply
from actors.events import CostUnreadable
from actors.money import Micros, _cost_of_text, _micros_of_text, cost_of, to_micros  # pyright: ignore[reportPrivateUsage]
from actors.transports.reconciliation import Answered, Lost
from actors.transports.transport import UnreadableCost
from tests.actors.supervisor.stage import offer, staged

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.transports.reconciliation import Finding

NO_COSTS = [
    "-0.01",
    "NaN",
    "Infinity",
    "free",
    "",
    "1e30",
    "x" * 10_000,
    Decimal(-1),
    Decimal("NaN"),
    Micros(-1),
    10**20,
]
MISTAKES = [0.5, float("nan"), True, 5_000, [1]]


def answering(cost: Any) -> Callable[[ProviderCall], Any]:
    async def answer(_call: ProviderCall) -> ProviderReply:
        return ProviderReply(output="done", cost=cost)

    return answer


@pytest.mark.parametrize("cost", [*NO_COSTS, *MISTAKES], ids=lambda cost: repr(cost)[:20])
async def test_what_was_reserved_is_paid_for_an_answer_whose_cost_cannot_be_read(cost: Any):
    async with staged(offer("a", answering(cost), price=10), offer("b", answering("0"), price=20)) as stage:
        result = await stage.request(timeout=5.0)
        assert (result.output, result.provider, result.cost) == ("done", "a", 10)
        (event,) = stage.of(CostUnreadable)
        assert (event.request_id, event.provider, event.settled) == (result.request_id, "a", 10)
        assert len(event.stated) <= 100
        statement = stage.ledger.book.statement()
        assert (statement.settled, statement.held) == (10, 0)
        await stage.assert_at_rest()


@pytest.mark.parametrize(
    ("cost", "micros"),
    [("0.0000001", 1), ("0.0000011", 2), ("1e-400", 1), (Decimal("0.00000050"), 1), ("0.000002", 2), (None, 10)],
)
async def test_a_cost_finer_than_a_micro_unit_rounds_up(cost: Any, micros: int):
    async with staged(offer("a", answering(cost), price=10)) as stage:
        assert (await stage.request(timeout=5.0)).cost == micros
        assert stage.of(CostUnreadable) == []
        assert stage.ledger.book.statement().settled == micros


class Asked(FunctionTransport):
    """Loses its answer, and finds it when it is asked."""

    def __init__(self, found: Finding) -> None:
        async def lose(_call: ProviderCall) -> Any:
            raise OutcomeUnknown("gone", provider="a")

        super().__init__(lose, paid=True, idempotent="no")
        self.found = found

    async def look_up(self, call: ProviderCall, *, timeout: float) -> Finding:  # noqa: ASYNC109 - of `LooksUp`.
        return self.found


@pytest.mark.parametrize(
    "found", [Answered(ProviderReply(output="late", cost="-1")), Lost("a lot")], ids=["late", "lost"]
)
async def test_what_was_reserved_is_paid_for_an_answer_that_was_found_with_such_a_cost(found: Finding):
    listing = Listing(provider=Provider(name="a", services={"s"}, price="0.01"), transport=lambda: Asked(found))
    async with staged(listing, offer("b", answering("0.02"), price=20_000)) as stage:
        assert (await stage.request(timeout=5.0)).output == ("late" if isinstance(found, Answered) else "done")
        (event,) = stage.of(CostUnreadable)
        assert (event.provider, event.settled) == ("a", to_micros("0.01"))
        assert stage.ledger.book.statement().held == 0


@pytest.mark.parametrize("cost", MISTAKES, ids=repr)
def test_a_mistake_of_the_program_is_refused_and_carries_the_answer(cost: Any):
    with pytest.raises(UnreadableCost, match="cost: ") as caught:
        ProviderReply(output="done", cost=cost)
    assert (caught.value.reply.output, caught.value.reply.cost) == ("done", None)


def test_a_budget_finer_than_a_micro_unit_stays_an_error():
    with pytest.raises(ValueError, match="more than 6 decimals"):
        to_micros("0.0000001")


def test_long_texts_are_not_kept_in_memory():
    _cost_of_text.cache_clear()
    _micros_of_text.cache_clear()
    for number in range(50):
        text = f"0.{number:02d}" + "0" * 900
        assert cost_of(text) == to_micros(text) == number * 10_000
        with pytest.raises(ValueError, match="characters"):
            cost_of("1" * 2_000)
    assert _cost_of_text.cache_info().currsize == _micros_of_text.cache_info().currsize == 0
