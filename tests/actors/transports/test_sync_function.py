"""A sync function as a transport: it runs in a thread, which cannot be cut, and its late answer is looked up."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from contextlib import suppress
from typing import Any

import pytest

from actors import (
    BreakerConfig,
    CallFailed,
    FunctionTransport,
    GetStatus,
    Isolate,
    Listing,
    Market,
    OutcomeUnknown,
    Provider,
    ProviderCall,
    ProviderReply,
    Retry,
    Supervisor,
    Throttled,
    Transient,
    smart_request,
    to_micros,
)
from actors.errors import BulkheadFull, Unclassified
from actors.ledger import GetHeld, GetStatement
from actors.transports import Answered, LooksUp, NeverRan, UnderWay
from runtime import ActorSystem
from runtime.simulation import Simulation, SimulationError
from tests.real_time import GUARD

pytestmark = pytest.mark.real_time

CONTEXT: contextvars.ContextVar[str] = contextvars.ContextVar("CONTEXT", default="none")


def a_call(timeout: float = GUARD, key: str = "k") -> ProviderCall:
    return ProviderCall(service="s", input="Ada", request_id="r", idempotency_key=key, max_cost=1, timeout=timeout)


class Stalling:
    """A function that stalls until it is let go on."""

    def __init__(self, answer: Any = "late", error: Exception | None = None) -> None:
        self.answer, self.error = answer, error
        self.go_on = threading.Event()
        self.begun = 0

    def __call__(self, _call: ProviderCall) -> Any:
        self.begun += 1
        assert self.go_on.wait(GUARD)
        if self.error is not None:
            raise self.error
        return self.answer


def transport_of(function: Any, **declared: Any) -> FunctionTransport:
    return FunctionTransport(function, **({"paid": True, "idempotent": "no", "provider": "alder"} | declared))


async def found(transport: Any, call: ProviderCall) -> Any:
    """Wait until a call that was given up has ended, and return what is found of it."""
    async with asyncio.timeout(GUARD):
        while isinstance(finding := await transport.look_up(call, timeout=1.0), UnderWay):  # noqa: ASYNC110 - a thread sets no event.
            await asyncio.sleep(0)
    return finding


async def test_a_sync_function_runs_in_a_thread_with_the_callers_context():
    CONTEXT.set("the caller's")

    def function(call: ProviderCall) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        return ProviderReply(output=(call.input, CONTEXT.get()), cost=5)

    assert await transport_of(function).call(a_call()) == ProviderReply(output=("Ada", "the caller's"), cost=5)


async def test_its_errors_are_read_as_those_of_an_async_function():
    def function(_call: ProviderCall) -> Any:
        raise Throttled("slow down", retry_after=3.0)

    with pytest.raises(Throttled):
        await transport_of(function).call(a_call())


async def test_what_it_returns_is_awaited_in_the_loop_if_it_can_be():
    async def answer(call: ProviderCall) -> str:
        assert threading.current_thread() is threading.main_thread()
        return call.input

    # A lambda is not seen to be async before it is called.
    assert (await transport_of(lambda call: answer(call)).call(a_call())).output == "Ada"  # noqa: PLW0108 - that is what is tested.
    bound = transport_of(functools.partial(answer))
    assert bound.threads is None
    assert (await bound.call(a_call())).output == "Ada"


async def test_beyond_its_timeout_the_outcome_is_unknown_and_its_late_answer_is_found():
    function = Stalling()
    transport = transport_of(function)
    with pytest.raises(OutcomeUnknown) as caught:
        await transport.call(a_call(timeout=0.01))
    assert caught.value.charged == "held"
    assert isinstance(transport, LooksUp)
    assert await transport.look_up(a_call(), timeout=1.0) == UnderWay()
    function.go_on.set()
    assert await found(transport, a_call()) == Answered(ProviderReply(output="late"))
    with pytest.raises(Unclassified, match="nothing is known"):
        await transport.look_up(a_call(key="another"), timeout=1.0)


async def test_a_call_that_its_caller_gives_up_is_found_too():
    function = Stalling()
    transport = transport_of(function)
    calling = asyncio.create_task(transport.call(a_call()))
    while not function.begun:  # noqa: ASYNC110 - as above.
        await asyncio.sleep(0)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    function.go_on.set()
    assert await found(transport, a_call()) == Answered(ProviderReply(output="late"))


@pytest.mark.parametrize(
    ("error", "finding"), [(ConnectionRefusedError(111, "x"), NeverRan()), (TimeoutError(), OutcomeUnknown)]
)
async def test_a_late_error_is_read_as_any(error, finding):
    function = Stalling(error=error)
    transport = transport_of(function)
    with pytest.raises(OutcomeUnknown):
        await transport.call(a_call(timeout=0.01))
    function.go_on.set()
    if finding is OutcomeUnknown:
        with pytest.raises(OutcomeUnknown):
            await found(transport, a_call())
    else:
        assert await found(transport, a_call()) == finding


async def test_a_thread_keeps_its_place_until_it_ends():
    function = Stalling()
    transport = transport_of(function)
    assert transport.threads is not None
    transport.threads.resize(2)
    for key in ("a", "b"):
        with pytest.raises(OutcomeUnknown):
            await transport.call(a_call(timeout=0.01, key=key))
    with pytest.raises(BulkheadFull) as refused:
        await transport.call(a_call(key="c"))
    assert (refused.value.charged, refused.value.max_concurrency, function.begun) == ("no", 2, 2)
    assert refused.value.given_up == 2
    function.go_on.set()
    await found(transport, a_call(key="a"))
    await found(transport, a_call(key="b"))
    assert (await transport.call(a_call(key="c"))).output == "late"
    assert len(transport.threads) == 0


def listing(function: Any, **known: Any) -> Listing:
    return Listing(
        provider=Provider(name="alder", services={"s"}, price=to_micros("0.02")),
        transport=lambda: FunctionTransport(function, paid=True, idempotent="no"),
        **known,
    )


async def test_a_request_with_time_left_gets_the_late_answer():
    function = Stalling("late")
    async with ActorSystem("shop", log=False) as system:
        market = Market(providers=[listing(function, timeout=0.05)])
        supervisor = system.spawn(lambda: Supervisor(market))
        asking = asyncio.create_task(smart_request(supervisor, service="s", input="x", timeout=GUARD))
        async with asyncio.timeout(GUARD):
            while not await supervisor.ask(GetHeld(), timeout=GUARD):  # noqa: ASYNC110 - as above.
                await asyncio.sleep(0)
        function.go_on.set()
        result = await asking
    assert (result.output, result.attempts, function.begun) == ("late", 1, 1)


async def test_money_stays_held_until_the_thread_ends_and_no_other_provider_is_paid():
    function = Stalling()
    async with ActorSystem("shop", log=False) as system:
        market = Market(providers=[listing(function, timeout=0.05)], budget="1")
        supervisor = system.spawn(lambda: Supervisor(market))
        with pytest.raises(OutcomeUnknown):
            await smart_request(supervisor, service="s", input="x", timeout=0.5)
        statement = await supervisor.ask(GetStatement("run"), timeout=GUARD)
        assert (statement.held, statement.settled) == (20_000, 0)
        function.go_on.set()
    assert function.begun == 1


async def test_each_provider_that_shares_a_function_has_threads_of_its_own():
    function = Stalling()

    def alone(call: ProviderCall) -> Any:
        return function(call) if call.provider == "alder" else call.provider

    shared = FunctionTransport(alone, paid=True, idempotent="no")
    listings = [
        Listing(
            provider=Provider(name=name, services={name}, price="0.02"),
            transport=lambda: shared,
            timeout=0.05,
            max_concurrency=1,
        )
        for name in ("alder", "birch")
    ]
    async with ActorSystem("shop", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=listings)))
        asking = asyncio.create_task(smart_request(supervisor, service="alder", input="x", timeout=GUARD))
        async with asyncio.timeout(GUARD):
            while not await supervisor.ask(GetHeld(), timeout=GUARD):  # noqa: ASYNC110 - as above.
                await asyncio.sleep(0)
        assert (await smart_request(supervisor, service="birch", input="x")).output == "birch"
        function.go_on.set()
        assert (await asking).output == "late"
        assert await supervisor.ask(GetHeld(), timeout=GUARD) == ()


async def test_a_thread_is_still_known_after_its_gateway_was_closed():
    function = Stalling("late")
    async with ActorSystem("shop", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing(function, timeout=0.05)])))
        asking = asyncio.create_task(smart_request(supervisor, service="s", input="x", timeout=GUARD))
        async with asyncio.timeout(GUARD):
            while not await supervisor.ask(GetHeld(), timeout=GUARD):  # noqa: ASYNC110 - as above.
                await asyncio.sleep(0)
        await supervisor.ask(Isolate(provider="alder"), timeout=GUARD)
        function.go_on.set()
        assert (await asking).output == "late"


async def test_a_call_that_was_given_up_keeps_its_place_and_others_wait_for_it():
    function = Stalling()
    async with ActorSystem("shop", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing(function, max_concurrency=1)])))
        ended = asyncio.create_task(smart_request(supervisor, service="s", input="x", timeout=GUARD))
        async with asyncio.timeout(GUARD):
            while not function.begun:  # noqa: ASYNC110 - as above.
                await asyncio.sleep(0)
        ended.cancel()
        with suppress(asyncio.CancelledError):
            await ended
        with pytest.raises(BulkheadFull, match="1 were given up and still run in threads; let its function end"):
            await smart_request(supervisor, service="s", input="y", timeout=0.05)
        waiting = asyncio.create_task(smart_request(supervisor, service="s", input="z", timeout=GUARD))
        async with asyncio.timeout(GUARD):
            while not (await supervisor.ask(GetStatus(), timeout=GUARD))[0].calls:  # noqa: ASYNC110 - as above.
                await asyncio.sleep(0)
        function.go_on.set()
        assert (await waiting).attempts == 1
        (status,) = await supervisor.ask(GetStatus(), timeout=GUARD)
    assert (status.calls, function.begun) == (2, 2)


class Mixed:
    """A sync function that answers, answers slowly, fails, or stalls until it is let go on, by its input."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.at_once = threading.Lock()
        self.under_way = self.most = 0

    def __call__(self, call: ProviderCall) -> Any:
        with self.at_once:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        try:
            match call.input % 4:
                case 1:
                    self.go_on.wait(0.01)
                case 2:
                    raise Transient("down", outcome="not_started")
                case 3:
                    assert self.go_on.wait(GUARD)
            return call.input
        finally:
            with self.at_once:
                self.under_way -= 1


@pytest.mark.parametrize("cancels", [False, True])
async def test_places_and_money_come_back_whatever_threads_do(*, cancels: bool):
    function = Mixed()
    async with ActorSystem("shop", log=False) as system:
        market = Market(
            providers=[listing(function, timeout=0.05, max_concurrency=6)],
            budget="100",
            retry=Retry(max_retries=1, base=0.001, cap=0.002),
            breaker=BreakerConfig(failure_threshold=1_000, failure_rate=1.0),
        )
        supervisor = system.spawn(lambda: Supervisor(market))
        asked = [
            asyncio.create_task(smart_request(supervisor, service="s", input=number, timeout=GUARD))
            for number in range(24)
        ]
        async with asyncio.timeout(GUARD):
            while function.under_way < 6:  # noqa: ASYNC110 - as above.
                await asyncio.sleep(0)
        if cancels:
            for one in asked[::5]:
                one.cancel()
        function.go_on.set()
        ended = await asyncio.gather(*asked, return_exceptions=True)
        (status,) = await supervisor.ask(GetStatus(), timeout=GUARD)
        statement = await supervisor.ask(GetStatement("run"), timeout=GUARD)
        again = await asyncio.gather(
            *(smart_request(supervisor, service="s", input=4 * number, timeout=GUARD) for number in range(12))
        )
    # Whoever could be answered was, with its own answer, and all the places are there for those who come next.
    assert [one.output for one in again] == [4 * number for number in range(12)]
    assert all(isinstance(one, asyncio.CancelledError | CallFailed) or one.output % 4 != 2 for one in ended)
    assert sum(not isinstance(one, BaseException) for one in ended) >= (12 if cancels else 18)
    assert (status.under_way, statement.reserved, function.most) == (0, 0, 6)


def test_in_a_simulation_there_are_no_threads():
    async def main() -> None:
        transport = transport_of(lambda call: call.input)
        with suppress(CallFailed):
            await transport.call(a_call())
        await transport.aclose()

    with pytest.raises(SimulationError, match="a thread does not exist"):
        Simulation(seed=1).run(main)
