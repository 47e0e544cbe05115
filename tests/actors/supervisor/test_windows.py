"""Windows: what is far too long is not sent, what may be too long goes to others first, and a refusal goes on."""

from __future__ import annotations

import contextlib

import pytest

from actors import FunctionTransport, GetStatus, Listing, Market, Provider, RequestOptions, Supervisor, smart_request
from actors.errors import AllProvidersFailed, InputTooLong, Permanent, Transient, WindowTooSmall
from actors.model_calls import ModelRequest
from actors.models import chat
from actors.tariffs import Tariff
from runtime import ActorSystem

ANSWER = {"choices": [{"message": {"content": "Hello!"}, "finish_reason": "stop"}], "model": "m", "usage": {}}


class Model:
    """A provider that takes so many bytes of text, or fails otherwise."""

    def __init__(self, name: str, takes: int = 10**9, *, error: Exception | None = None, **offered):
        self.calls = 0
        self.bounds: list[int | None] = []

        async def answer(call):
            self.calls += 1
            body = call.input.body if isinstance(call.input, ModelRequest) else call.input
            self.bounds.append(body.get("max_completion_tokens"))
            if error is not None:
                raise error
            if len(body["messages"][0]["content"]) > takes:
                raise Permanent("too long", scope="here", concerns="window")
            return ANSWER

        terms = {name: offered.pop(name) for name in ("tariff", "max_output") if name in offered}
        self.listing = Listing(
            provider=Provider(name=name, services={"chat"}, **offered),
            transport=lambda: FunctionTransport(answer, paid=False, idempotent="no"),
            **terms,
        )


@pytest.fixture
async def stage():
    """Return a function that starts a supervisor over some models."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(*models):
            system = await stack.enter_async_context(ActorSystem("windows", log=False))
            return system.spawn(lambda: Supervisor(Market(providers=[one.listing for one in models])))

        yield start


def best_first(*models):
    """Give the models reputations in this order."""
    return {"options": RequestOptions(strategy=lambda offered: sorted(offered, key=lambda one: models.index(one.name)))}


async def test_a_refusal_goes_to_a_larger_window_and_no_breaker_moves(stage):
    small, same, large = Model("a", 100, window=1_000), Model("b", window=1_000), Model("c", window=4_000)
    supervisor = await stage(small, same, large)
    for number in range(1, 9):
        result = await chat(supervisor, messages="x" * 1_000, **best_first("a", "b", "c"))
        assert (result.provider, small.calls, same.calls) == ("c", number, 0)
    states = await supervisor.ask(GetStatus(), timeout=1.0)
    assert {one.breaker for one in states} == {"closed"}
    # What does not exceed them goes to them as ever.
    assert (await chat(supervisor, messages="x", **best_first("a", "b", "c"))).provider == "a"


async def test_a_refusal_of_an_unknown_window_goes_to_the_next(stage):
    unknown, large = Model("a", 100), Model("b", window=1_000)
    assert (await chat(await stage(unknown, large), messages="x" * 200, **best_first("a", "b"))).provider == "b"


@pytest.mark.parametrize(("size", "calls"), [(5_900, 1), (6_200, 0)])
async def test_only_what_exceeds_a_window_at_six_bytes_a_token_is_refused_beforehand(stage, size, calls):
    # Keys and role of the message are 22 bytes of text more.
    one = Model("a", window=1_000)
    supervisor = await stage(one)
    if calls:
        await chat(supervisor, messages="x" * size)
    else:
        with pytest.raises(InputTooLong) as caught:
            await chat(supervisor, messages="x" * size)
        error = caught.value
        assert (error.largest, error.largest_at, error.attempts) == (1_000, "a", ())
        assert (error.outcome, error.charged) == ("not_started", "no")
        assert "the largest is 1,000 tokens, at 'a'" in str(error)
        assert isinstance(error.refused[0], WindowTooSmall)
    assert one.calls == calls


async def test_what_may_be_too_long_goes_to_larger_windows_first(stage):
    small, large = Model("a", window=1_000), Model("b", window=2_000)
    supervisor = await stage(small, large)
    assert (await chat(supervisor, messages="x" * 4_400, **best_first("a", "b"))).provider == "b"
    assert (await chat(supervisor, messages="x" * 3_000, **best_first("a", "b"))).provider == "a"
    # The bound of the output takes its part of the window.
    assert (await chat(supervisor, messages="x" * 3_000, max_tokens=500, **best_first("a", "b"))).provider == "b"


async def test_what_may_be_too_long_is_tried_if_no_other_serves(stage):
    small, large = Model("a", window=1_000), Model("b", error=Permanent("no", scope="here"), window=2_000)
    assert (await chat(await stage(small, large), messages="x" * 4_400)).provider == "a"


async def test_a_request_that_all_refuse_as_too_long_names_the_largest_window(stage):
    supervisor = await stage(Model("a", 10, window=1_000), Model("b", 10, window=3_000), Model("c", 10, window=2_000))
    with pytest.raises(InputTooLong) as caught:
        await chat(supervisor, messages="x" * 100, **best_first("a", "c", "b"))
    assert (caught.value.largest, caught.value.largest_at, len(caught.value.attempts)) == (3_000, "b", 3)
    assert "1. a: Permanent" in str(caught.value)
    supervisor = await stage(Model("a", 10), Model("b", 10))
    with pytest.raises(InputTooLong, match="no window is known") as caught:
        await chat(supervisor, messages="x" * 100)
    assert (caught.value.largest, caught.value.largest_at) == (None, None)


async def test_who_fails_otherwise_is_no_question_of_windows(stage):
    down = Model("b", error=Transient("down"), window=9_000)
    supervisor = await stage(Model("a", 10, window=1_000), down)
    with pytest.raises(AllProvidersFailed) as caught:
        await chat(supervisor, messages="x" * 100, options=RequestOptions(timeout=2.0))
    assert not isinstance(caught.value, InputTooLong)
    supervisor = await stage(Model("a", window=1_000), down)
    with pytest.raises(AllProvidersFailed, match="too long for the window of 'a', 1,000 tokens") as caught:
        await chat(supervisor, messages="x" * 7_000, options=RequestOptions(timeout=2.0))
    assert not isinstance(caught.value, InputTooLong)


async def test_an_input_that_is_no_request_to_a_model_is_no_question_of_windows(stage):
    one = Model("a", window=1)
    request = {"messages": [{"content": "x" * 99}]}
    with pytest.raises(InputTooLong):
        await smart_request(await stage(one), service="chat", input=request)
    with pytest.raises(Permanent, match="has no attribute"):  # It was called.
        await smart_request(await stage(one), service="chat", input="x" * 99)


@pytest.mark.parametrize(("size", "bound"), [(4, 4_096), (4_000, 5_000 - 1_020 * 6 // 5), (29_000, 16)])
async def test_the_bound_of_the_output_leaves_room_for_the_input(stage, size, bound):
    one = Model("a", window=5_000, tariff=Tariff(input="1", output="1"))
    await chat(await stage(one), messages="x" * size)
    assert abs(one.bounds[0] - bound) <= 20
