"""One request, as a caller writes it; in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors import (
    BudgetExceeded,
    FunctionTransport,
    Listing,
    Market,
    NoProvider,
    Permanent,
    Provider,
    ProviderCall,
    ProviderFilter,
    RequestOptions,
    Retry,
    SmartRequest,
    Supervisor,
    Transient,
    smart_request,
)
from actors.ledger import OpenAccount, provider_key, scoped_key
from actors.money import Micros
from actors.providers import Requirement, ScoreAnswer
from actors.supervisor import SmartResult
from runtime import Actor, ActorStopped, ActorSystem, handles


class Recorder:
    """A provider that answers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[ProviderCall] = []

    async def __call__(self, call: ProviderCall) -> Any:
        self.calls.append(call)
        return call.input


def market(recorder: Recorder, *, price: int = 10) -> Market:
    provider = Provider(
        name="a", services={"translation"}, price=Micros(price), reputation=80, capabilities={"en", "de"}
    )
    return Market(
        providers=[
            Listing(provider=provider, transport=lambda: FunctionTransport(recorder, paid=True, idempotent="key"))
        ]
    )


async def test_a_request_says_everything_and_is_answered_with_who_what_and_how_much():
    recorder = Recorder()
    async with ActorSystem("requests", seed=1) as system:
        supervisor = system.spawn(lambda: Supervisor(market(recorder)))
        await supervisor.ask(OpenAccount(name="job", cap=Micros(100)), timeout=1)
        result = await smart_request(
            supervisor,
            service="translation",
            input={"text": "Hello", "target": "de"},
            budget="0.20",
            where=ProviderFilter(min_reputation=70, required_capabilities={"en", "de"}),
            strategy="best",
            fallback_strategies=("balanced", "cheapest"),
            health_check=True,
            timeout=10.0,
            account="job",
            request_id="r-1",
            idempotency_key="k-1",
        )
        assert (result.output, result.provider) == ({"text": "Hello", "target": "de"}, "a")
        assert (result.cost, result.attempts, result.request_id, result.failures) == (10, 1, "r-1", ())
        (call,) = recorder.calls
        key = provider_key(scoped_key("k-1", account="job"))
        assert (call.request_id, call.idempotency_key, call.max_cost, call.timeout) == ("r-1", key, 10, 10.0)


async def test_an_answer_says_how_long_the_request_took_with_all_its_calls_and_waits():
    calls = 0

    async def slow(_: ProviderCall) -> str:
        nonlocal calls
        calls += 1
        await asyncio.sleep(2.0)
        if calls == 1:
            raise Transient("503", outcome="not_started")
        return "done"

    listing = Listing(
        provider=Provider(name="a", services={"s"}),
        transport=lambda: FunctionTransport(slow, paid=False, idempotent="no"),
    )
    market = Market(providers=[listing], retry=Retry(base=1.0, jitter="none"))
    async with ActorSystem("requests", seed=1) as system:
        supervisor = system.spawn(lambda: Supervisor(market))
        result = await smart_request(supervisor, service="s", input="x")
    assert (result.latency, result.attempts) == (2.0 + 1.0 + 2.0, 2)


async def test_a_request_without_names_gets_one_for_itself_and_its_key():
    recorder = Recorder()
    async with ActorSystem("requests") as system:
        supervisor = system.spawn(lambda: Supervisor(market(recorder)))
        first, second = [await smart_request(supervisor, service="translation", input=1) for _ in range(2)]
        assert first.request_id != second.request_id
        assert [call.idempotency_key for call in recorder.calls] == [first.request_id, second.request_id]


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": 0.0},
        {"timeout": -1.0},
        {"timeout": "5"},
        {"strategy": "luckiest"},
        {"fallback_strategies": "cheapest"},
        {"budget": 0.1},
        {"budget": "-1"},
        {"service": ["translation"]},
        {"where": {"max_price": 1}},
        {"requirement": {"context": 1}},
        {"idempotency_key": 5},
        {"idempotency_key": "half a \ud800"},
        {"request_id": 17},
        {"account": 1},
        {"tenant": 1},
        {"weights": {"tokens": "x"}},
        {"weights": {"tokens": -1}},
    ],
    ids=ascii,
)
async def test_what_makes_no_sense_is_refused_before_anybody_is_asked(wrong: dict[str, Any]):
    recorder = Recorder()
    async with ActorSystem("requests") as system:
        supervisor = system.spawn(lambda: Supervisor(market(recorder)))
        with pytest.raises((ValueError, TypeError), match=f"{next(iter(wrong))}|weight of tokens|amount"):
            await smart_request(supervisor, **{"service": "translation", "input": 1} | wrong)
        assert recorder.calls == []
        with pytest.raises(TypeError, match="supervisor must be the ref of a Supervisor"):
            await smart_request(Supervisor(market(recorder)), service="s", input=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="strategies"):
        SmartRequest(service="s", input=1, timeout=1.0, strategies=())
    with pytest.raises(TypeError, match=r"budget: amount .* is a float"):
        SmartRequest(service="s", input=1, timeout=1.0, budget=0.1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_refusals_reach_the_caller_as_what_they_are():
    recorder = Recorder()
    async with ActorSystem("requests") as system:
        supervisor = system.spawn(lambda: Supervisor(market(recorder)))
        with pytest.raises(Permanent, match="no open account 'nobody'"):
            await smart_request(supervisor, service="translation", input=1, account="nobody")
        with pytest.raises(BudgetExceeded):
            await smart_request(supervisor, service="translation", input=1, budget="0.000001")
        supervisor.stop()
        await supervisor.terminated()
        with pytest.raises(ActorStopped):
            await smart_request(supervisor, service="translation", input=1)
    assert recorder.calls == []
    assert len(asyncio.all_tasks()) == 1


async def test_whoever_cannot_take_the_input_is_not_called_and_the_reason_is_told():
    called: list[str] = []

    def listing(name: str, tokens: int) -> Listing:
        async def answer(_: ProviderCall) -> str:
            called.append(name)
            return name

        return Listing(
            provider=Provider(name=name, services={"s"}, max_input_tokens=tokens),
            transport=lambda: FunctionTransport(answer, paid=False, idempotent="repeatable"),
        )

    async with ActorSystem("needs") as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing("small", 10), listing("large", 1000)])))
        needs = Requirement(input_tokens=500)
        assert (
            await smart_request(supervisor, service="s", input=1, options=RequestOptions(requirement=needs))
        ).provider == "large"
        with pytest.raises(NoProvider, match="input"):
            await smart_request(
                supervisor, service="s", input=1, options=RequestOptions(requirement=Requirement(input_tokens=5000))
            )
    assert called == ["large"]


async def test_scores_teach_the_bandit_who_answers_well():
    def listing(name: str) -> Listing:
        async def answer(_: ProviderCall) -> str:
            return name

        return Listing(
            provider=Provider(name=name, services={"s"}),
            transport=lambda: FunctionTransport(answer, paid=False, idempotent="repeatable"),
        )

    async with ActorSystem("scores", seed=1) as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing("good"), listing("bad")])))
        chosen: list[str] = []
        for _ in range(150):
            result = await smart_request(supervisor, service="s", input=1, strategy="bandit")
            chosen.append(result.provider)
            score = 0.95 if result.provider == "good" else 0.05
            question = ScoreAnswer(service="s", score=score, request_id=result.request_id)
            await supervisor.ask(question, timeout=1.0)
        assert chosen[-50:].count("good") >= 45
        with pytest.raises(Permanent, match="no answer to request"):
            await supervisor.ask(ScoreAnswer(service="s", score=1.0, request_id="unheard of"), timeout=1.0)


async def test_whose_answers_are_scored_badly_is_left_by_every_strategy_and_tried_again_later():
    def listing(name: str, price: int) -> Listing:
        async def answer(_: ProviderCall) -> str:
            return name

        return Listing(
            provider=Provider(name=name, services={"s"}, price=Micros(price), response_time=price / 100),
            transport=lambda: FunctionTransport(answer, paid=True, idempotent="no"),
        )

    async with ActorSystem("scores", seed=1) as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing("first", 10), listing("second", 20)])))
        strategies = ("best", "cheapest", "fastest", "balanced", "least_loaded")
        for strategy in strategies[:4]:
            assert (await smart_request(supervisor, service="s", input=1, strategy=strategy)).provider == "first"
        for _ in range(20):
            result = await smart_request(supervisor, service="s", input=1, strategy="cheapest")
            score = 0.0 if result.provider == "first" else 1.0
            await supervisor.ask(ScoreAnswer(service="s", score=score, request_id=result.request_id), timeout=1.0)
        for strategy in strategies:
            assert (await smart_request(supervisor, service="s", input=1, strategy=strategy)).provider == "second"
        await asyncio.sleep(3_600.0)
        assert (await smart_request(supervisor, service="s", input=1, strategy="cheapest")).provider == "first"


class Desk(Actor[SmartRequest]):
    """Takes note of the requests that reach it."""

    taken: list[SmartRequest]

    def __init__(self) -> None:
        self.taken = []

    @handles(SmartRequest)
    def take(self, message: SmartRequest) -> SmartResult:
        self.taken.append(message)
        return SmartResult(output=message, provider="x", cost=Micros(0), attempts=1, request_id="x")


async def test_every_option_reaches_the_request():
    options = RequestOptions(
        budget="0.20",
        where=ProviderFilter(min_reputation=70),
        requirement=Requirement(input_tokens=100),
        strategy="cheapest",
        fallback_strategies=("fastest",),
        health_check=True,
        timeout=7.0,
        weights={"tokens": 9},
        tenant="acme",
        on_refused="next",
        on_bad_answer="next",
        on_leave="finish",
        risk="0.01",
        priority="low",
        max_waiting=5,
        trace={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
    )
    plain = RequestOptions()
    unset = {name for name in options.__struct_fields__ if getattr(options, name) == getattr(plain, name)}
    assert unset == {"on_unknown"}  # It is another way to state the risk.
    async with ActorSystem("desk", log=False) as system:
        desk = system.spawn(Desk)
        result = await smart_request(desk, service="s", input="x", options=options, request_id="r")
    assert result.output == options.request("s", "x", request_id="r")


@pytest.mark.parametrize(
    "given",
    [
        {"budget": "0.10"},
        {"where": ProviderFilter(min_reputation=1)},
        {"strategy": "fastest"},
        {"fallback_strategies": ["cheapest", "best"]},
        {"health_check": False},
        {"timeout": 3.0},
        {"on_unknown": "hold"},
        {"risk": "0.02"},
        {"account": "acme"},
        {"idempotency_key": "k"},
    ],
    ids=lambda given: next(iter(given)),
)
async def test_what_is_given_beside_the_options_goes_before_them(given: dict[str, Any]):
    options = RequestOptions(
        budget="0.20",
        strategy="cheapest",
        fallback_strategies=("fastest",),
        health_check=True,
        timeout=7.0,
        risk="0.01",
    )
    async with ActorSystem("desk", log=False) as system:
        desk = system.spawn(Desk)
        result = await smart_request(desk, service="s", input="x", options=options, request_id="r", **given)
    own = {name: value for name, value in given.items() if name in options.__struct_fields__}
    beside = {name: value for name, value in given.items() if name not in own}
    assert result.output == options.changed(**own).request("s", "x", request_id="r", **beside)
    assert result.output != options.request("s", "x", request_id="r")
