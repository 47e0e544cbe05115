"""The gateway of one provider: bounded, closed once, and no more fragile than its transport; in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from actors import CallFailed, FunctionTransport, Listing, Provider, ProviderCall, ProviderGateway, Transient
from actors.errors import BulkheadFull
from actors.provider_gateway import Call, CheckHealth
from actors.provider_gateway.messages import TRANSPORT_GRACE, InlineCall
from runtime import ActorCrashed, ActorSystem, AskTimeout, Restart

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runtime import ActorRef

FOREVER = 1e9
LATENCY = 1.0


class Door(FunctionTransport):
    """Counts its calls, checks and closings."""

    def __init__(self, *, lasts: float = LATENCY, error: BaseException | None = None, check_lasts: float = 0.0) -> None:
        super().__init__(self.answer, paid=True, idempotent="no", provider="a")
        self.lasts, self.error, self.check_lasts = lasts, error, check_lasts
        self.check_error: Exception | None = None
        self.under_way = self.most_under_way = self.checks = self.closed = self.cancelled = 0

    async def call(self, call: ProviderCall) -> Any:
        if isinstance(self.error, KeyError | asyncio.CancelledError):
            raise self.error
        return await super().call(call)

    async def answer(self, call: ProviderCall) -> Any:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(self.lasts)
            if self.error is not None:
                raise self.error
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        else:
            return call.input
        finally:
            self.under_way -= 1

    async def check(self, *, timeout: float) -> None:  # noqa: ASYNC109 - the protocol.
        self.checks += 1
        await asyncio.sleep(self.check_lasts)
        if self.check_error is not None:
            raise self.check_error

    async def aclose(self) -> None:
        self.closed += 1
        await asyncio.sleep(0)


@asynccontextmanager
async def gateway(door: Door, **limits: Any) -> AsyncIterator[ActorRef[Any]]:
    listing = Listing(provider=Provider(name="a", services={"s"}), transport=lambda: door, **limits)
    async with ActorSystem("doors") as system:
        yield system.spawn(lambda: ProviderGateway(listing), restart=Restart.TEMPORARY)
    assert len(asyncio.all_tasks()) == 1
    assert door.closed == 1
    assert door.under_way == 0


def call(text: str = "x", *, timeout: float = 5.0) -> Call:
    return Call(ProviderCall(service="s", input=text, request_id="r", idempotency_key="r", max_cost=0, timeout=timeout))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_as_many_calls_as_allowed_are_under_way_and_one_more_is_refused():
    door = Door()
    async with gateway(door, max_concurrency=3) as ref:
        outcomes = await asyncio.gather(*(ref.ask(call(), timeout=9) for _ in range(5)), return_exceptions=True)
        refused = [one for one in outcomes if isinstance(one, BulkheadFull)]
        assert len(refused) == 2
        assert refused[0].max_concurrency == door.most_under_way == 3
        assert (await ref.ask(call("again"), timeout=9)).output == "again"


async def test_a_call_tells_that_it_was_sent_only_once_it_is():
    door = Door()
    async with gateway(door, max_concurrency=1) as ref:
        first, second = call(), call()
        asking = asyncio.create_task(ref.ask(first, timeout=9))
        await settle()
        with pytest.raises(BulkheadFull):
            await ref.ask(second, timeout=9)
        assert (first.marker.is_sent, second.marker.is_sent) == (True, False)
        await asking


async def test_a_call_that_is_cancelled_or_expires_gives_its_place_back():
    door = Door(lasts=FOREVER)
    async with gateway(door, max_concurrency=2) as ref:
        asking = asyncio.create_task(ref.ask(call(timeout=50.0), timeout=60))
        await settle()
        asking.cancel()
        with pytest.raises(AskTimeout):
            await ref.ask(call(timeout=50.0), timeout=3)
        await settle()
        assert door.cancelled == 2
        door.lasts = 0.0
        assert [(await ref.ask(call(), timeout=9)).output for _ in range(3)] == ["x"] * 3


async def test_a_bug_of_the_transport_ends_its_own_call_and_no_other():
    door = Door()
    async with gateway(door) as ref:
        others = [asyncio.create_task(ref.ask(call(), timeout=9)) for _ in range(3)]
        await settle()
        door.error = KeyError("bug")
        with pytest.raises(CallFailed, match="TransportBug: KeyError: 'bug'") as failed:
            await ref.ask(call(), timeout=9)
        assert failed.value.blames_provider
        assert isinstance(failed.value.__cause__, KeyError)
        door.error = None
        assert [(await one).output for one in others] == ["x"] * 3
        assert (await ref.ask(call(), timeout=9)).output == "x"


async def test_a_gateway_that_is_stopped_finishes_its_calls_and_one_that_is_killed_does_not():
    door = Door()
    async with gateway(door) as ref:
        asking = asyncio.create_task(ref.ask(call("kept"), timeout=9))
        await settle()
        ref.stop()
        assert (await asking).output == "kept"
        await ref.terminated()
        assert door.closed == 1
    door = Door()
    async with gateway(door) as ref:
        asking = asyncio.create_task(ref.ask(call(), timeout=9))
        await settle()
        ref.kill()
        with pytest.raises(ActorCrashed):
            await asking
        await ref.terminated()
        assert (door.closed, door.cancelled) == (1, 1)


async def test_health_is_remembered_for_as_long_as_asked_and_one_check_serves_all_askers_meanwhile():
    door = Door(check_lasts=1.0)
    async with gateway(door) as ref:
        healths = await asyncio.gather(*(ref.ask(CheckHealth(max_age=30.0), timeout=9) for _ in range(50)))
        assert {health.is_healthy for health in healths} == {True}
        assert (door.checks, {health.checked_at for health in healths}) == (1, {1.0})
        await ref.ask(CheckHealth(max_age=30.0), timeout=9)
        assert door.checks == 1
        door.check_error = Transient("down", provider="a")
        assert (await ref.ask(CheckHealth(max_age=0.0), timeout=9)).problem == "down"
        assert door.checks == 2


async def test_a_check_goes_on_for_the_others_when_the_asker_that_began_it_is_cancelled():
    door = Door(check_lasts=1.0)
    async with gateway(door) as ref:
        first = asyncio.create_task(ref.ask(CheckHealth(), timeout=9))
        await settle()
        second = asyncio.create_task(ref.ask(CheckHealth(), timeout=9))
        await settle()
        first.cancel()
        assert (await second).is_healthy
        assert door.checks == 1


async def test_a_check_that_hangs_is_given_up_and_one_that_raises_is_a_finding():
    door = Door(check_lasts=FOREVER)
    async with gateway(door) as ref:
        health = await ref.ask(CheckHealth(timeout=2.0), timeout=9)
        assert health.problem is not None
        assert "TimeoutError" in health.problem
        assert asyncio.get_running_loop().time() == 2.0 + TRANSPORT_GRACE
        door.check_lasts, door.check_error = 0.0, KeyError("bug")
        health = await ref.ask(CheckHealth(max_age=0.0), timeout=9)
        assert health.problem == "its check failed: KeyError: 'bug'"
        assert (await ref.ask(call(), timeout=9)).output == "x"


async def test_a_gateway_that_ends_during_a_check_leaves_no_task():
    for end in ("stop", "kill"):
        door = Door(check_lasts=FOREVER)
        async with gateway(door) as ref:
            asking = asyncio.create_task(ref.ask(CheckHealth(), timeout=9))
            await settle()
            getattr(ref, end)()
            await ref.terminated()
            with pytest.raises(ActorCrashed):
                await asking
            assert len(asyncio.all_tasks()) <= 2


@pytest.mark.parametrize("is_prompt", [False, True])
async def test_a_cancellation_that_escapes_from_a_call_ends_that_call_and_no_other(is_prompt: bool):  # noqa: FBT001
    door = Door()
    kind = InlineCall if is_prompt else Call
    async with gateway(door) as ref:
        others = [asyncio.create_task(ref.ask(kind(call().call), timeout=9)) for _ in range(3)]
        await settle()
        door.error = asyncio.CancelledError()
        with pytest.raises(CallFailed, match="TransportBug: CancelledError") as failed:
            await ref.ask(kind(call().call), timeout=9)
        assert failed.value.blames_provider
        door.error = None
        assert [(await one).output for one in others] == ["x"] * 3
