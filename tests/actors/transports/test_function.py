"""The function transport: one line makes a transport of any async function."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import msgspec
import pytest

from actors.errors.families import CallFailed, OutcomeUnknown, Permanent, Throttled, Transient, Unclassified
from actors.money import Micros
from actors.transports.function import FunctionTransport
from actors.transports.transport import ProviderCall, ProviderReply


def a_call(timeout: float = 5.0) -> ProviderCall:
    return ProviderCall(
        service="greeting", input="Ada", request_id="r", idempotency_key="k", max_cost=0, timeout=timeout
    )


def raising(error: BaseException, **declared: Any) -> FunctionTransport:
    async def fail(_call: ProviderCall) -> None:
        raise error

    return FunctionTransport(fail, **({"paid": True, "idempotent": "no", "provider": "alder"} | declared))


async def test_a_value_becomes_an_output_and_a_reply_passes_through():
    reply = ProviderReply(output=None, cost=Micros(5))
    for answer, expected in ((reply, reply), ("hi", ProviderReply(output="hi")), (None, ProviderReply(output=None))):

        async def function(_call: ProviderCall, answer: object = answer) -> object:
            return answer

        assert await FunctionTransport(function, paid=False, idempotent="no").call(a_call()) == expected


@pytest.mark.parametrize(
    ("idempotent", "family"), [("no", OutcomeUnknown), ("key", Transient), ("repeatable", Transient)]
)
async def test_an_error_is_classified_as_of_a_call_that_was_sent(idempotent, family):
    error = ConnectionResetError("by peer")
    with pytest.raises(CallFailed) as caught:
        await raising(error, idempotent=idempotent).call(a_call())
    assert type(caught.value) is family
    assert (caught.value.provider, caught.value.charged) == ("alder", "held")
    assert caught.value.__cause__ is error


async def test_a_classified_error_passes_as_it_is():
    error = Throttled("slow down", provider="alder", retry_after=3.0)
    with pytest.raises(Throttled) as caught:
        await raising(error).call(a_call())
    assert caught.value is error
    assert caught.value.__cause__ is None


async def test_a_function_that_takes_too_long_is_cancelled_and_its_outcome_unknown():
    ended = asyncio.Event()

    async def hang(_call: ProviderCall) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(OutcomeUnknown):
        await FunctionTransport(hang, paid=True, idempotent="no").call(a_call(timeout=0.01))
    assert ended.is_set()


class TooSlow(Exception):
    """What a function makes of its own timeout."""


async def bounded(call: ProviderCall) -> None:
    async with asyncio.timeout(call.timeout):
        await asyncio.sleep(99)


async def waiting(call: ProviderCall) -> None:
    await asyncio.wait_for(asyncio.sleep(99), call.timeout)


async def translating(call: ProviderCall) -> None:
    try:
        await bounded(call)
    except TimeoutError:
        raise TooSlow("the model needs longer") from None


@pytest.mark.parametrize("function", [bounded, waiting, translating])
@pytest.mark.parametrize("idempotent", ["no", "key"])
@pytest.mark.parametrize("paid", [True, False])
async def test_a_function_that_bounds_itself_fails_alike_whichever_timeout_is_first(function, idempotent, paid):
    failures: set[Any] = set()
    for later in (-1e-7, 0.0, 1e-7):

        async def alone(call: ProviderCall, later: float = later) -> None:
            await function(msgspec.structs.replace(call, timeout=call.timeout + later))

        transport = FunctionTransport(alone, paid=paid, idempotent=idempotent, provider="alder")
        with pytest.raises(CallFailed) as caught:
            await transport.call(a_call(2.0))
        failed = caught.value
        failures.add((type(failed), failed.charged, failed.outcome, failed.retryable, failed.blames_provider))
    assert len(failures) == 1


async def test_an_error_before_its_time_is_over_is_no_timeout():
    async def fail(_call: ProviderCall) -> None:
        await asyncio.sleep(1.9)
        raise TooSlow("the model needs longer")

    with pytest.raises(Unclassified):
        await FunctionTransport(fail, paid=False, idempotent="no").call(a_call(2.0))


async def test_a_call_may_have_all_the_time_there_is():
    async def greet(_call: ProviderCall) -> str:
        await asyncio.sleep(1e6)
        return "hi"

    transport = FunctionTransport(greet, paid=False, idempotent="no")
    assert (await transport.call(a_call(timeout=math.inf))).output == "hi"


async def test_a_call_under_way_ends_in_time_although_its_transport_is_closed():
    """As when a gateway ends and its listing gives every gateway the same transport."""

    async def hang(_call: ProviderCall) -> None:
        await asyncio.sleep(1e6)

    transport = FunctionTransport(hang, paid=False, idempotent="no")
    calling = asyncio.create_task(transport.call(a_call(timeout=5.0)))
    await asyncio.sleep(1.0)
    await transport.aclose()
    with pytest.raises(CallFailed, match="no answer within 5 s"):
        await calling
    assert asyncio.get_running_loop().time() == 5.0


async def test_a_cancellation_is_not_classified():
    with pytest.raises(asyncio.CancelledError):
        await raising(asyncio.CancelledError()).call(a_call())


async def test_health_is_what_the_check_says_and_good_without_one():
    seen: list[float] = []

    async def check(timeout: float) -> None:  # noqa: ASYNC109 - what is tested.
        seen.append(timeout)
        if len(seen) > 1:
            raise PermissionError("key revoked")

    async def function(_call: ProviderCall) -> None:
        return None

    await FunctionTransport(function, paid=False, idempotent="no").check(timeout=1.0)
    transport = FunctionTransport(function, paid=True, idempotent="no", check=check)
    await transport.check(timeout=2.0)
    with pytest.raises(Permanent, match="key revoked") as caught:
        await transport.check(timeout=2.0)
    assert (seen, caught.value.charged) == ([2.0, 2.0], "no")
    await transport.aclose()
    assert "function, paid=True, idempotent='no'" in repr(transport)


@pytest.mark.parametrize(("field", "value"), [("max_cost", -1), ("timeout", 0.0), ("timeout", math.nan)])
def test_a_call_that_could_never_succeed_is_refused(field, value):
    fields = {"service": "s", "input": 1, "request_id": "r", "idempotency_key": "k", "max_cost": 0, "timeout": 1.0}
    with pytest.raises(ValueError, match=field):
        ProviderCall(**(fields | {field: value}))


async def test_the_retries_of_an_sdk_are_counted_in_the_reply_and_in_the_error():
    async def answers(_: ProviderCall) -> ProviderReply:
        return ProviderReply(output="x", wire_calls=3)

    async def fails(_: ProviderCall) -> ProviderReply:
        raise Transient("down", provider="acme", wire_calls=4)

    async def says_nothing(_: ProviderCall) -> str:
        raise ConnectionResetError

    doors = [FunctionTransport(one, paid=False, idempotent="repeatable") for one in (answers, fails, says_nothing)]
    assert (await doors[0].call(a_call())).wire_calls == 3
    for door, expected in zip(doors[1:], (4, 1), strict=True):
        with pytest.raises(Transient) as caught:
            await door.call(a_call())
        assert caught.value.wire_calls == expected
    with pytest.raises(ValueError, match="wire_calls must be >= 0"):
        ProviderReply(output=None, wire_calls=-1)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"paid": "yes"}, TypeError),
        ({"idempotent": "yes"}, ValueError),
        ({"function": 5}, TypeError),
        ({"function": lambda: None}, TypeError),
    ],
)
def test_what_cannot_be_a_transport_is_refused_when_it_is_made(wrong: dict[str, Any], error: type[Exception]):
    async def function(_call: ProviderCall) -> None: ...

    with pytest.raises(error, match=next(iter(wrong))):
        FunctionTransport(**{"function": function, "paid": True, "idempotent": "no"} | wrong)


async def test_errors_name_the_provider_as_it_is_listed_or_as_was_said():
    for said, listed, named in ((None, None, "fail"), (None, "birch", "birch"), ("alder", "birch", "alder")):
        with pytest.raises(OutcomeUnknown) as caught:
            await raising(OSError("x"), provider=said).call(msgspec.structs.replace(a_call(), provider=listed))
        assert str(caught.value.provider).endswith(named)


def test_a_cost_that_is_a_float_is_refused_at_once():
    with pytest.raises(TypeError, match=r"cost: amount 0\.001 is a float"):
        ProviderReply(output="x", cost=0.001)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_a_group_that_holds_a_cancellation_is_one_and_the_time_limit_is_heard_through_it():
    async def gives_up(_call: ProviderCall) -> None:
        try:
            await asyncio.sleep(60.0)
        except asyncio.CancelledError as cancelled:
            raise BaseExceptionGroup("of a task group", [cancelled, OSError("lost")]) from None

    transport = FunctionTransport(gives_up, paid=True, idempotent="no")
    with pytest.raises(OutcomeUnknown):
        await transport.call(a_call(timeout=0.01))
    calling = asyncio.create_task(transport.call(a_call()))
    await asyncio.sleep(0)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    ends_the_program = BaseExceptionGroup("g", [asyncio.CancelledError(), SystemExit()])
    with pytest.raises(BaseExceptionGroup):
        await raising(ends_the_program).call(a_call())


async def test_what_the_function_says_of_a_failure_is_masked_too():
    error = Throttled("too many calls of sk-12345", said="the key sk-12345 calls too often")
    with pytest.raises(Throttled) as caught:
        await raising(error, secrets=["sk-12345"]).call(a_call())
    assert str(caught.value) == "too many calls of ***: the key *** calls too often"


@pytest.mark.parametrize("wrap", [lambda text: text, lambda text: {"page": text}], ids=["text", "field"])
async def test_text_that_is_no_json_is_a_broken_answer_unless_it_is_the_input(wrap):
    async def parse(call: ProviderCall):
        given = call.input if isinstance(call.input, str) else call.input["page"]
        return json.loads("<html>" if given == "fine" else given)

    transport = FunctionTransport(parse, paid=False, idempotent="repeatable")
    with pytest.raises(Transient, match="sent an answer that cannot be read"):
        await transport.call(msgspec.structs.replace(a_call(), input=wrap("fine")))
    with pytest.raises(Permanent, match="cannot read the input"):
        await transport.call(msgspec.structs.replace(a_call(), input=wrap("no JSON")))
