"""A reading of failed calls of the user's own: at the transport, and at the market for every transport."""

from __future__ import annotations

from typing import Any

import pytest
from loguru import logger

from actors import (
    CallFailed,
    FunctionTransport,
    Listing,
    Market,
    OutcomeUnknown,
    Permanent,
    Provider,
    ProviderCall,
    ProviderReply,
    Supervisor,
    Throttled,
    Transient,
    smart_request,
)
from actors.market import MarketError, parse_market
from runtime import ActorSystem


class Odd(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def raises(error: Exception) -> Any:
    async def function(_call: ProviderCall) -> None:
        raise error

    return function


def to_permanent(error: Exception, call: ProviderCall) -> CallFailed | None:
    return Permanent(f"read by {call.provider}", outcome="not_started") if isinstance(error, Odd | Throttled) else None


def fails(_error: Exception, _call: ProviderCall) -> CallFailed | None:
    raise Odd


def returns_nonsense(_error: Exception, _call: ProviderCall) -> Any:
    return "no family"


@pytest.fixture
def logged() -> Any:
    lines: list[str] = []
    handler = logger.add(lines.append, format="{message}", level="ERROR")
    yield lines
    logger.remove(handler)


async def outcome_of(error: Exception, *, market: Any = None, transport: Any = None) -> CallFailed:
    listing = Listing(
        provider=Provider(name="alder", services={"s"}),
        transport=lambda: FunctionTransport(raises(error), paid=True, idempotent="no", classify=transport),
    )
    async with ActorSystem("shop") as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing], classify=market)))
        with pytest.raises(CallFailed) as caught:
            await smart_request(supervisor, service="s", input="x", timeout=5.0)
    return caught.value


@pytest.mark.parametrize("door", ["market", "transport"])
@pytest.mark.parametrize("error", [Odd(), Throttled("slow down")])
async def test_a_failure_is_what_the_user_reads_from_it(door, error):
    failure = await outcome_of(error, **{door: to_permanent})
    assert (type(failure), failure.provider, failure.charged) == (Permanent, "alder", "no")
    assert str(failure).startswith("read by alder")
    assert failure.__cause__ is error


@pytest.mark.parametrize("door", ["market", "transport"])
async def test_an_error_that_is_left_to_us_is_read_as_ever(door):
    assert type(await outcome_of(TimeoutError(), **{door: to_permanent})) is OutcomeUnknown


@pytest.mark.parametrize("door", ["market", "transport"])
@pytest.mark.parametrize("classify", [fails, returns_nonsense])
async def test_a_reading_that_fails_is_logged_and_ours_holds(door, classify, logged):
    failure = await outcome_of(TimeoutError(), **{door: classify})
    assert (type(failure), failure.charged) == (OutcomeUnknown, "held")
    assert any("classify" in line and "'alder'" in line for line in logged)


async def test_a_transports_own_reading_takes_the_place_of_the_markets():
    def ours(_error: Exception, _call: ProviderCall) -> CallFailed | None:
        return None

    assert type(await outcome_of(Odd(), market=to_permanent, transport=ours)) is OutcomeUnknown


async def test_the_market_reads_what_a_transport_of_any_kind_raises():
    class Broken:
        paid, idempotent = True, "no"

        async def call(self, call: ProviderCall) -> ProviderReply:
            raise Odd

        async def check(self, *, timeout: float) -> None: ...  # noqa: ASYNC109 - the protocol.

        async def aclose(self) -> None: ...

    listing = Listing(provider=Provider(name="alder", services={"s"}), transport=Broken)  # type: ignore[arg-type]
    for classify, family in ((to_permanent, Permanent), (None, OutcomeUnknown)):
        async with ActorSystem("shop") as system:
            market = Market(providers=[listing], classify=classify)
            supervisor = system.spawn(lambda market=market: Supervisor(market))
            with pytest.raises(family):
                await smart_request(supervisor, service="s", input="x", timeout=5.0)


def test_what_cannot_read_is_refused_at_the_door():
    async def too_late(_error: Exception, _call: ProviderCall) -> Transient:
        return Transient("x")

    listing = Listing(
        provider=Provider(name="alder", services={"s"}),
        transport=lambda: FunctionTransport(raises(Odd()), paid=True, idempotent="no"),
    )
    for wrong in ("a name", too_late):
        with pytest.raises(TypeError, match="classify must be a function"):
            Market(providers=[listing], classify=wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        with pytest.raises(TypeError, match="classify must be a function"):
            FunctionTransport(raises(Odd()), paid=True, idempotent="no", classify=wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(MarketError, match="classify"):
        parse_market(
            'classify = "mine"\n[[providers]]\nname = "a"\nservices = ["s"]\nurl = "http://h/"\n', path="m.toml"
        )
